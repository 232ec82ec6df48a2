"""Entries at random."""


def mutate(*a): ...
