"""The commands and their options; the work is imported when a command runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

app = typer.Typer(
    name="w8a16",
    help="8-bit weights for any PyTorch model: int8 codes, one float32 scale per output channel.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document instead of tables.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]


def _version(value: bool) -> None:
    if value:
        from w8a16 import __version__

        typer.echo(f"w8a16 {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    pass


@app.command()
def quantize(
    src: Annotated[
        str,
        typer.Argument(
            help="A safetensors file, a folder of them, a transformers or diffusers folder, or a hub id."
        ),
    ],
    dst: Annotated[Path, typer.Argument(help="The folder to write; it must not exist yet.")],
    include: Annotated[
        Optional[list[str]],  # noqa: UP045  # typer reads this at run time, on Python 3.10 too
        typer.Option(help="Convert only what this name or glob matches; repeatable."),
    ] = None,
    exclude: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option(help="Spare what this name or glob matches; repeatable."),
    ] = None,
    strict: Annotated[bool, typer.Option(help="Fail if any weight would stay float.")] = False,
    kinds: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option(help="Convert only layers of this kind (linear, embedding, ...); repeatable."),
    ] = None,
    on_nonfinite: Annotated[
        str, typer.Option(help="error, or keep-float: leave weights with NaN or Inf as they are.")
    ] = "error",
    recipe: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(help="A JSON file with these rules and with weights to hold finer, instead of them."),
    ] = None,
    by_name: Annotated[
        bool, typer.Option("--by-name", help="Go by names and shapes even where the model class is known.")
    ] = False,
    weights: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="The weight file or index to use, where SRC has several."),
    ] = None,
    memory: Annotated[str, typer.Option(help="Memory to work in, beside the interpreter.")] = "512MiB",
    clean: Annotated[
        bool, typer.Option("--clean", help="Remove what interrupted runs left beside DST.")
    ] = False,
    dry_run: Annotated[bool, typer.Option(help="Show the plan and write nothing.")] = False,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Quantize a checkpoint of any size into a new folder."""
    from w8a16.checkpoint.streaming import Options
    from w8a16.cli import quantize as command

    options = Options(command.read_recipe(recipe, include, exclude, kinds), strict, on_nonfinite)
    budget = command.parse_size(memory)
    command.run(command.Request(src, dst, options, by_name, weights, budget, dry_run, clean, as_json))


@app.command()
def inspect(
    path: Annotated[
        Path, typer.Argument(help="A safetensors file, a folder of them, or a folder of model folders.")
    ],
    every: Annotated[bool, typer.Option("--all", help="Show every tensor, however many there are.")] = False,
    weights: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="The weight file or index to use, where PATH has several."),
    ] = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Show what a checkpoint holds: weights, verdicts, bytes, and what was lost."""
    from w8a16.cli import inspect as command

    command.run(path, every, weights, as_json)


@app.command()
def verify(
    path: Annotated[Path, typer.Argument(help="A quantized file, or a folder that holds some.")],
    source: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(help="What it was made from: compare every weight with it, too."),
    ] = None,
    weights: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="The weight file or index to use, where PATH has several."),
    ] = None,
    as_json: Json = False,
    debug: Debug = False,
) -> int:
    """Check a quantized checkpoint: checksums, invariants, and each weight within half a step."""
    from w8a16.cli import verify as command

    return command.run(path, source, weights, as_json)


@app.command()
def dequantize(
    src: Annotated[Path, typer.Argument(help="A quantized file, or a folder that holds some.")],
    dst: Annotated[Path, typer.Argument(help="The folder to write; it must not exist yet.")],
    weights: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="The weight file or index to use, where SRC has several."),
    ] = None,
    clean: Annotated[
        bool, typer.Option("--clean", help="Remove what interrupted runs left beside DST.")
    ] = False,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Write a quantized checkpoint back as a float one, into a new folder."""
    from w8a16.cli import dequantize as command

    command.run(src, dst, weights, clean, as_json)


@app.command()
def export(
    src: Annotated[Path, typer.Argument(help="The folder that `w8a16 quantize` made of a transformers one.")],
    dst: Annotated[Path, typer.Argument(help="The folder to write; it must not exist yet.")],
    to: Annotated[str, typer.Option(help="The format: compressed-tensors.")],
    scales: Annotated[
        str, typer.Option(help="float32: as they are; model-dtype: rounded first, codes made anew for them.")
    ] = "float32",
    float_source: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option("--float", help="The float folder that SRC was made from, for --scales model-dtype."),
    ] = None,
    pack_head: Annotated[
        bool, typer.Option("--pack-head", help="Keep the output head int8, too, which some servers misread.")
    ] = False,
    check: Annotated[
        bool, typer.Option(help="Refuse what transformers itself would not load from this format.")
    ] = True,
    clean: Annotated[
        bool, typer.Option("--clean", help="Remove what interrupted runs left beside DST.")
    ] = False,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Write an int8 folder for transformers, vLLM or SGLang without this library."""
    from w8a16.cli import export as command

    command.run(command.Request(src, dst, to, scales, float_source, pack_head, check, clean, as_json))


@app.command("import")
def import_int8(
    src: Annotated[
        str,
        typer.Argument(
            help="A folder, or a hub id: int8 of compressed-tensors, bitsandbytes, quanto or torchao."
        ),
    ],
    dst: Annotated[Path, typer.Argument(help="The folder to write; it must not exist yet.")],
    clean: Annotated[
        bool, typer.Option("--clean", help="Remove what interrupted runs left beside DST.")
    ] = False,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Take over int8 weights that another library stored, with their codes as they are."""
    from w8a16.cli import import_int8 as command

    command.run(command.Request(src, dst, clean, as_json))


@app.command()
def compare(
    float_source: Annotated[
        str, typer.Argument(metavar="FLOAT", help="A transformers folder with float weights, or a hub id.")
    ],
    quantized: Annotated[
        str, typer.Argument(metavar="QUANTIZED", help="The folder that `w8a16 quantize` made of it.")
    ],
    inputs: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(help="Inputs by name: .safetensors, .npz, or .json with nested lists."),
    ] = None,
    dataset: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="Inputs that come with packages: python-docs, digits, photographs, spoken-words."),
    ] = None,
    text: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(help="Text in UTF-8, one a line; language models read it as a whole."),
    ] = None,
    task: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="What the outputs are for.", show_default="told by the model class"),
    ] = None,
    sensitivity: Annotated[
        bool, typer.Option("--sensitivity", help="Put layers back to float one at a time: which to blame?")
    ] = False,
    batches: Annotated[int, typer.Option(help="How many batches to take at the most.")] = 8,
    report: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(help="Write a report, too: .html, .md or .json."),
    ] = None,
    speed: Annotated[
        float, typer.Option(help="Seconds to time the linear layers for the report; 0: leave them out.")
    ] = 0.0,
    repair: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(
            metavar="BUDGET",
            help="Find the cheapest recipe within a budget of drift, such as kl=0.001, and write it to "
            "--recipe. Holds the float model in memory, and a copy.",
        ),
    ] = None,
    recipe: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(help="The file that --repair writes; it must not exist yet."),
    ] = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Measure what int8 weights do to the outputs of a model, and through which layers."""
    from w8a16.cli import compare as command

    command.run(
        command.Options(
            float_source,
            quantized,
            inputs,
            dataset,
            text,
            task,
            sensitivity,
            batches,
            report,
            as_json,
            repair,
            recipe,
            speed,
        )
    )


@app.command()
def bench(
    src: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Argument(help="A local transformers model folder; only its config is read, no weights."),
    ] = None,
    shape: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option(help="Instead of SRC: a weight as OUTxIN, such as 4096x11008; repeatable."),
    ] = None,
    batch: Annotated[
        str, typer.Option(help="Batch sizes: activation rows, that is sequences times tokens.")
    ] = "1,2,4,8,16,32,64,128",
    dtype: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="float32, bfloat16 or float16.", show_default="the model's own, or float32"),
    ] = None,
    threads: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option(help="How many threads.", show_default="torch's own"),
    ] = None,
    seconds: Annotated[float, typer.Option(help="About how long to measure.")] = 30.0,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Time the linear layers, float against int8, and say where int8 pays."""
    from w8a16.cli import bench as command

    command.run(src, shape, batch, dtype, threads, seconds, as_json)


@app.command()
def study(
    scenario: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option(help="Only this one, such as text-gpt; repeatable.", show_default="all"),
    ] = None,
    size: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option(help="small, medium or large; repeatable.", show_default="all, or small if --quick"),
    ] = None,
    seeds: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option(help="How many models of each kind.", show_default="3, or 1 if --quick"),
    ] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Fewer steps, fewer variants: minutes.")] = False,
    out: Annotated[
        Path, typer.Option(help="The folder to write; a study that was interrupted there goes on.")
    ] = Path("study-output"),
    threads: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option(help="How many models to work on at once, a thread each.", show_default="torch's own"),
    ] = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Train small models of five modalities, and measure what 8-bit weights do to them."""
    from w8a16.cli import study as command

    command.run(scenario or [], size or [], seeds, quick, out, threads, as_json)


@app.command()
def doctor(as_json: Json = False, debug: Debug = False) -> None:
    """Show versions, devices, and which backend runs and why not the others."""
    from w8a16.cli import doctor as command

    command.run(as_json)
