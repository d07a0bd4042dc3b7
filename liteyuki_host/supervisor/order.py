"""In which order processes start and stop, and who is restarted along with whom. Pure.

The mappings are those of the settings: their order is the order of declaration, which decides where ``after`` does
not.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from graphlib import CycleError, TopologicalSorter

from liteyuki_host.supervisor.spec import ProcessSpec, Strategy


def problems(specs: Mapping[str, ProcessSpec]) -> list[str]:
    """Why these processes could never all start: one line for each mistake in their ``after``; empty when it is sound.

    Of several circles with a step in common the first may hide the others until it is corrected.
    """
    lines = []
    for name, spec in specs.items():
        for other in dict.fromkeys(spec.after):
            if other == name:
                lines.append(f"process {name} cannot be after itself: remove it from after")
            elif other not in specs:
                lines.append(f"process {name} is after {other}, which is not declared: correct after")
    for circle in _circles(specs):
        lines.append(f"processes wait for each other: {' -> '.join(circle)} (each is after the next): remove one after")
    return lines


def stop_levels(specs: Mapping[str, ProcessSpec]) -> list[list[str]]:
    """Groups of names, to be stopped one after another: nobody is stopped before all that come ``after`` it are.

    Raises:
        graphlib.CycleError: for specs with `problems`.
    """
    dependents: dict[str, list[str]] = {name: [] for name in specs}
    for name, others in _predecessors(specs).items():
        for other in others:
            dependents[other].append(name)
    return _levels(dependents)


def also_restarted(specs: Mapping[str, ProcessSpec], name: str) -> list[str]:
    """Whom the strategy of ``name`` restarts besides itself when it ends unasked, each behind those it is ``after``.

    Whether they run is not looked at: one that is stopped stays stopped, and that is the caller's to see.

    Raises:
        KeyError: ``name`` is not declared.
        graphlib.CycleError: for specs with `problems`.
    """
    strategy = specs[name].strategy
    if strategy is Strategy.ONE:
        return []
    declared = list(specs)
    first = declared.index(name) + 1 if strategy is Strategy.REST else 0
    chosen = set(declared[first:]) - {name}
    return [other for level in _levels(_predecessors(specs)) for other in level if other in chosen]


def _predecessors(specs: Mapping[str, ProcessSpec]) -> dict[str, list[str]]:
    return {name: [other for other in dict.fromkeys(spec.after) if other in specs] for name, spec in specs.items()}


def _levels(predecessors: Mapping[str, list[str]]) -> list[list[str]]:
    """Each name in the first group that follows all its predecessors; within a group as declared."""
    sorter = TopologicalSorter(predecessors)
    sorter.prepare()
    levels = []
    while sorter.is_active():
        free = set(sorter.get_ready())
        levels.append([name for name in predecessors if name in free])
        sorter.done(*free)
    return levels


def _circles(specs: Mapping[str, ProcessSpec]) -> Iterator[list[str]]:
    """Circles of two or more, each from its first declared process round to it again."""
    rank = {name: place for place, name in enumerate(specs)}
    edges = {name: [other for other in others if other != name] for name, others in _predecessors(specs).items()}
    while True:
        try:
            TopologicalSorter(edges).prepare()
        except CycleError as error:
            # graphlib names it as a list whose items are each the predecessor of the next, the first again as last.
            circle: list[str] = error.args[1][:0:-1]
        else:
            return
        start = circle.index(min(circle, key=rank.__getitem__))
        circle = [*circle[start:], *circle[: start + 1]]
        edges[circle[-2]].remove(circle[-1])  # opened, so that the next one is found
        yield circle
