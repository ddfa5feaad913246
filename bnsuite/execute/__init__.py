"""Execute: plan the cells, measure them, here or in worker processes. (Empty: the pool needs no torch.)"""
