from e3nn.nn import BatchNorm

from bnsuite import Scheme


class Norm(BatchNorm):
    def __init__(self, num_features):
        super().__init__(f"{num_features}x0e")

    def forward(self, x):  # (N, C, *S)
        return super().forward(x.movedim(1, -1)).movedim(-1, 1)


scheme = Scheme("e3nn-batchnorm", Norm, paper="arXiv 2207.09453")
