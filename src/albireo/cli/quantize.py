"""Write a checkpoint in fewer bits, with a report of what that costs.

The result is in the compressed-tensors layout, which other engines read too, or an engine directory.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import click

from albireo.api.build import build
from albireo.api.sources.locate import locate_model
from albireo.artifact.reader import is_engine_directory
from albireo.artifact.writer import check_target
from albireo.backends.cpu.machine import name_lost_pages
from albireo.bench.short_run import measure_short
from albireo.cli.terminal import amount_bar, row, size
from albireo.compress.recipe import HEADS, METHODS, MIXED, SCHEMES, Recipe, default_method
from albireo.compress.report import REPORT_PAGE, report_files, text_lines
from albireo.compress.result import Outcome, Speed, Speeds
from albireo.compress.run import quantize
from albireo.compress.texts import CALIBRATION, Text, read_text
from albireo.compress.writer import CheckpointWriter, passing_directory
from albireo.errors import ConfigError, EngineError, ModelError
from albireo.models import load_config
from albireo.models.gguf.files import is_gguf
from albireo.text.tokenizer import Tokenizer
from albireo.text.vocabularies import vocabulary_files
from albireo.verify.text import SAMPLE

_CALIBRATION_TOKENS, _EVALUATION_TOKENS = 16384, 4096
FORMATS = ("compressed-tensors", "engine")
#: The request that speed is measured with.
_INPUT_LEN, _OUTPUT_LEN = 512, 64


@click.command()
@click.argument("model", required=False)
@click.option("-o", "--output", required=True, metavar="DIR", help="Where to; it must be free or empty.")
@click.option("--scheme", required=True, type=click.Choice([*SCHEMES, MIXED]), help="What linears become.")
@click.option("--method", type=click.Choice(METHODS), help="By default smoothquant for int8, rtn for fp8…, else gptq.")
@click.option("--calibration", metavar="FILE", help="What methods look at; by default passages of children's books.")
@click.option("--calibration-tokens", type=click.IntRange(2), default=_CALIBRATION_TOKENS, show_default=True)
@click.option("--target-bits", type=float, help="Of scheme mixed: bits a weight, scales included.")
@click.option("--keep", multiple=True, metavar="NAME[,NAME]", help="Modules that stay as they are: down_proj, *.0.*, …")
@click.option("--head", type=click.Choice(list(HEADS)), default="bf16", show_default=True, help="The vocabulary head.")
@click.option("--evaluate", multiple=True, metavar="FILE", help="Measure quality on this text; by default on a sample.")
@click.option("--evaluate-tokens", type=click.IntRange(2), default=_EVALUATION_TOKENS, show_default=True)
@click.option(
    "--format",
    "form",
    type=click.Choice(FORMATS),
    default=FORMATS[0],
    show_default=True,
    help="What DIR becomes: a checkpoint, or an engine directory built of it.",
)
@click.option("--no-speed", is_flag=True, help="Leave out the short runs that measure both models' speed.")
def command(
    model: str | None,
    output: str,
    scheme: str,
    method: str | None,
    calibration: str | None,
    calibration_tokens: int,
    target_bits: float | None,
    keep: tuple[str, ...],
    head: str,
    evaluate: tuple[str, ...],
    evaluate_tokens: int,
    form: str,
    no_speed: bool,
) -> None:
    """Write a checkpoint in fewer bits, with a report of what that costs.

    MODEL is a directory or a hub name; the bundled model when left out. Layer after layer is quantized on inputs that
    the quantized layers before it give, so that memory holds one layer in float32. quantization.html and .json in DIR
    say what became of each linear, and how perplexity, KL divergence, top-1 agreement and speed changed.
    """
    name_lost_pages()
    source = _checkpoint(model)
    names = tuple(name for part in keep for name in part.split(",") if name)
    recipe = Recipe(
        scheme=scheme, method=method or default_method(scheme), head=head, keep=names, target_bits=target_bits
    )
    seen = _text(source, Path(calibration) if calibration else CALIBRATION, calibration_tokens)
    texts = [_text(source, Path(path), evaluate_tokens) for path in evaluate or (str(SAMPLE),)]

    def finish(writer: CheckpointWriter, outcome: Outcome) -> Outcome:
        found = outcome if no_speed else _with_speeds(outcome, source, writer.folder)
        for name, data in report_files(found).items():
            writer.write(name, data)
        return found

    def write(target: Path) -> Outcome:
        return quantize(source, target, recipe, seen, texts, finish=finish, progress=amount_bar)

    target = Path(output).expanduser()
    outcome = write(target) if form == FORMATS[0] else _built(write, target)
    for line in text_lines(outcome):
        click.echo(line)
    num_bytes = sum(path.stat().st_size for path in target.rglob("*") if path.is_file())
    click.echo(row("written", f"{output}, {size(num_bytes)}; report in {output}/{REPORT_PAGE}"))


def _checkpoint(model: str | None) -> Path:
    """The directory of weights that are numbers. Raises: ModelError where there are none to round."""
    source = locate_model(model)
    if is_engine_directory(source):
        raise ModelError(f"{source} is an engine directory; give the checkpoint that it was built from")
    if is_gguf(source):
        raise ModelError(f"{source} is a GGUF file; give the checkpoint in Hugging Face layout that it was made of")
    return source


def _built(write: Callable[[Path], Outcome], target: Path) -> Outcome:
    """An engine directory; the checkpoint it is built of lies beside it meanwhile."""
    check_target(target, force=False)
    with passing_directory(target) as folder:
        outcome = write(folder / "checkpoint")
        build(folder / "checkpoint", target, show_progress=True, reports=report_files(outcome))
    return outcome


def _with_speeds(outcome: Outcome, original: Path, quantized: Path) -> Outcome:
    """Both measured, one after the other: no two models are in memory."""
    try:
        with amount_bar("speed", 0):
            runs = [measure_short(model, _INPUT_LEN, _OUTPUT_LEN) for model in (original, quantized)]
    except EngineError as error:
        return replace(outcome, speed_note=str(error))
    before, after = (Speed(r.decode_tokens_per_s, r.prefill_tokens_per_s, r.weight_bytes) for r in runs)
    run = runs[0].run
    speeds = Speeds(before, after, run.num_prompt_tokens, run.num_output_tokens, runs[0].num_threads)
    return replace(outcome, speeds=speeds)


def _text(source: Path, path: Path, num_tokens: int) -> Text:
    config = load_config(source)
    if not vocabulary_files(source):
        raise ConfigError(f"{source}: has no tokenizer, so no text can be read to calibrate on")
    tokenizer = Tokenizer.from_directory(source)
    return read_text(path.expanduser(), tokenizer, config.vocab_size, config.max_position_embeddings, num_tokens)
