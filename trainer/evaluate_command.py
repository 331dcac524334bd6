"""`inlier-trainer evaluate`: the options; the work is in `trainer.evaluate`, loaded when it is needed."""

from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from models.bundle import load_bundle

if TYPE_CHECKING:
    from trainer.results import EvaluationResult

File = click.Path(path_type=Path, dir_okay=False)
Folder = click.Path(path_type=Path)
Positive = click.IntRange(min=1)


@click.command()
@click.argument("bundle", type=Folder)
@click.argument("data", type=Folder)
@click.option(
    "--profile",
    "profiles",
    multiple=True,
    metavar="NAME",
    help="Reconstruction profile, repeatable, or all [default: the bundle's default for the device].",
)
@click.option("--json", "json_file", type=File, help="Write metrics and protocol as JSON.")
@click.option("--csv", "csv_file", type=File, help="Write score, verdict and time of every image as CSV.")
@click.option(
    "--sheet",
    "sheet_file",
    type=File,
    help="Write a PNG of best and worst cases; with several profiles one each, NAME-PROFILE.png.",
)
@click.option("--limit", type=Positive, help="Use this many images, spread evenly over the sorted paths.")
@click.option("--batch-size", type=Positive, default=8, show_default=True, help="Images per engine call.")
@click.option(
    "--metric-px",
    type=click.IntRange(min=0),
    default=256,
    show_default=True,
    help="Longest side of the maps and masks that pixel metrics compare; 0: each image's own size.",
)
@click.option("--defects", type=Folder, help="Take defective images from DEFECTS/<type>, not DATA/test.")
@click.option("--masks", type=Folder, help="Take masks from MASKS/<type>, not DATA/ground_truth.")
@click.option("--no-masks", is_flag=True, help="Measure image scores only.")
@click.option(
    "--runtime",
    type=click.Choice(["onnx", "openvino", "torch"]),
    default="onnx",
    show_default=True,
    help="What runs the network.",
)
@click.option(
    "--device", type=click.Choice(["cpu", "gpu"]), default="cpu", show_default=True, help="Where it runs."
)
@click.option(
    "--threads", type=click.IntRange(min=0), default=0, help="CPU threads [default: the runtime's choice]."
)
def evaluate(
    bundle: Path,
    data: Path,
    profiles: tuple[str, ...],
    json_file: Path | None,
    csv_file: Path | None,
    sheet_file: Path | None,
    limit: int | None,
    batch_size: int,
    metric_px: int,
    defects: Path | None,
    masks: Path | None,
    no_masks: bool,
    runtime: Literal["onnx", "openvino", "torch"],
    device: Literal["cpu", "gpu"],
    threads: int,
) -> None:
    """Measure BUNDLE on the labelled images of DATA: test/good, test/<type> and ground_truth/<type>."""
    from rich.console import Console

    from trainer.console import stage
    from trainer.evaluate import evaluate as run
    from trainer.parts import require_profile
    from trainer.protocol import Settings
    from trainer.results import print_result, write_csv, write_json
    from trainer.testset import Sources

    for file in (json_file, csv_file, sheet_file):  # before hours of work, not after
        if file is not None:
            file.parent.mkdir(parents=True, exist_ok=True)
    opened = load_bundle(bundle)
    require_profile(opened.manifest, profiles)
    result = run(
        opened,
        Sources(data, defects, masks, use_masks=not no_masks),
        profiles or (opened.manifest.default_profile[device],),
        Settings(runtime, device, threads, batch_size, metric_px, limit),
        stage,
    )
    if json_file is not None:
        write_json(json_file, result)
    if csv_file is not None:
        write_csv(csv_file, result)
    if sheet_file is not None:
        _write_sheets(sheet_file, result)
    console = Console()
    # a table squeezed into the 80 columns assumed of a file or pipe would lose its digits
    print_result(result, console if console.is_terminal else Console(width=120))


def _write_sheets(file: Path, result: "EvaluationResult") -> None:
    from trainer.sheet import write_sheet

    model = result.protocol["model"]
    data = f"{result.protocol['data']}, {result.protocol['images']} images"
    for name, found in result.profiles.items():
        path = file if len(result.profiles) == 1 else file.with_stem(f"{file.stem}-{name}")
        write_sheet(
            path,
            found.cases,
            title=f"{model['name']} {model['version']} · profile {name}",
            subtitle=f"{data}, bundle {model['bundle_sha256'][:12]}",
            scale=found.scale,
        )
