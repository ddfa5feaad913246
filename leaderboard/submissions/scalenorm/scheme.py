from x_transformers.x_transformers import ScaleNorm

from bnsuite import Scheme


class Norm(ScaleNorm):
    def forward(self, x):  # (N, C, *S)
        return super().forward(x.movedim(1, -1)).movedim(-1, 1)


scheme = Scheme("scalenorm", Norm, paper="arXiv 1910.05895")
