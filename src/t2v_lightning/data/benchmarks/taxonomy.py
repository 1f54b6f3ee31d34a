"""Grouping classes by their taxonomy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

RANKS = ("kingdom", "phylum", "class", "order", "family", "genus")
"""Ranks from the widest to the narrowest."""


class TaxonGroup(NamedTuple):
    """Classes that share a taxon; telling them apart is a task.

    `members` are class numbers, and `taxon` holds the ranks that all of them share, with their names.
    """

    name: str
    members: list[int]
    taxon: dict[str, str]


def shared_ranks(taxa: Sequence[Mapping[str, str]]) -> dict[str, str]:
    """The ranks at which all have the same name, with that name.

    >>> crow = {"class": "Aves", "order": "Passeriformes", "genus": "Corvus"}
    >>> shared_ranks([crow, {**crow, "genus": "Pica"}])
    {'class': 'Aves', 'order': 'Passeriformes'}
    """
    return {
        rank: taxa[0][rank]
        for rank in RANKS
        if len({taxon.get(rank) for taxon in taxa}) == 1 and rank in taxa[0]
    }


def group_by_rank(taxa: Mapping[int, Mapping[str, str]], rank: str) -> list[TaxonGroup]:
    """Classes grouped by their name at a rank; groups and members keep the order of `taxa`.

    >>> taxa = {3: {"order": "Strigiformes"}, 1: {"order": "Anseriformes"}, 2: {"order": "Strigiformes"}}
    >>> [(group.name, group.members) for group in group_by_rank(taxa, "order")]
    [('Strigiformes', [3, 2]), ('Anseriformes', [1])]
    """
    members: dict[str, list[int]] = {}
    for number, taxon in taxa.items():
        members.setdefault(taxon[rank], []).append(number)
    return [TaxonGroup(name, own, shared_ranks([taxa[n] for n in own])) for name, own in members.items()]
