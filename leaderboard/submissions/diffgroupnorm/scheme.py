from torch_geometric.nn.norm import DiffGroupNorm

from bnsuite import Scheme


class Norm(DiffGroupNorm):
    def __init__(self, num_features):
        super().__init__(num_features, groups=4)

    def forward(self, x):  # (N, C, *S)
        z = x.movedim(1, -1)
        return super().forward(z.flatten(0, -2)).view_as(z).movedim(-1, 1)


scheme = Scheme("diffgroupnorm", Norm, paper="arXiv 2006.06972")
