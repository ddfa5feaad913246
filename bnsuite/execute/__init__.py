"""Execute: plan cells and measure them, in this process or in workers.

Exports nothing, since the pool is imported without torch.
"""
