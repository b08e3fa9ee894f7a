"""Measure the few numbers of kernels that matter on this machine, and keep what is faster.

Changes how fast a model runs, never a bit of what it computes.
"""

from __future__ import annotations

from typing import Any

import click

from albireo.api.sources.locate import locate_model
from albireo.cli.terminal import Bar, row

#: Seconds of a session; a model of half a billion parameters is measured in full in about so many.
BUDGET_S = 60.0


@click.command()
@click.argument("model", required=False)
@click.option("--budget", "budget_s", type=float, default=BUDGET_S, show_default=True, help="Seconds to spend.")
@click.option("--dry-run", is_flag=True, help="Measure and print; write nothing.")
@click.option("--dtype", default="auto", help="Compute type; auto takes the checkpoint's.")
@click.option("--num-threads", type=click.IntRange(1), help="Measure for this many threads; by default one per core.")
def command(model: str | None, budget_s: float, dry_run: bool, dtype: str, num_threads: int | None) -> None:
    """Measure the few numbers of kernels that matter on this machine, and keep what is faster.

    MODEL is a directory of either kind or a hub name; the bundled model when left out. What is found goes to the user's
    cache, where every model with calls of the same sizes finds it, and to tuning.json of an engine directory.
    """
    run(model, budget_s=budget_s, dry_run=dry_run, dtype=dtype, num_threads=num_threads)


def run(model: str | None, *, budget_s: float, dry_run: bool = False, **how: Any) -> None:
    """Tune, print what was found, and write it."""
    from albireo.tune.report import summary, table_lines
    from albireo.tune.save import check_place, save
    from albireo.tune.session import tune_model

    if not dry_run:
        check_place(locate_model(model), how.get("num_threads"))
    with _PointBar() as bar:
        result = tune_model(model, budget_s=budget_s, on_point=bar.show, **how)
    here = result.table.fingerprint
    click.echo(row("model", str(result.directory)))
    click.echo(row("machine", f"{here.cpu}, {here.threads} threads, {here.isa_levels.split()[0]}"))
    click.echo("\n".join(table_lines(result)))
    click.echo(row("tuned", summary(result)))
    if dry_run:
        click.echo(row("written", "nothing (--dry-run)"))
        return
    saved = save(result.directory, result.table)
    for path in saved.paths:
        click.echo(row("written", str(path)))
    for reason in saved.refused:
        click.echo(row("not written", reason))


class _PointBar:
    """A bar over the points of a session, whose number is known when the first begins."""

    def __init__(self) -> None:
        self._bar: Bar | None = None
        self._done = 0

    def __enter__(self) -> _PointBar:
        return self

    def __exit__(self, *error: object) -> None:
        if self._bar is not None:
            self._bar.__exit__(*error)

    def show(self, done: int, total: int) -> None:
        if self._bar is None:
            self._bar = Bar(total, "Tuning")
        for _ in range(done - self._done):
            self._bar.advance()
        self._done = done
