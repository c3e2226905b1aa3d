"""``edgeseg export``: the folder's PyTorch network as ONNX."""

from __future__ import annotations

from typing import Annotated

import typer

from edgeseg.cli.common import JsonOption, ModelArg, print_json, print_lines, progress

EXAMPLES = """
edgeseg export runs/my_model
edgeseg export runs/my_model --dynamic
edgeseg export runs/my_model --half-weights --json
edgeseg export runs/my_model --operators standard
"""


def command(
    model: ModelArg,
    dynamic: Annotated[bool, typer.Option("--dynamic", help="Let batch, height and width vary.")] = False,
    batch: Annotated[int, typer.Option("--batch", min=1, max=1024, help="The fixed batch size.")] = 1,
    half_weights: Annotated[bool, typer.Option("--half-weights", help="Store weights as FP16: half the file.")] = False,
    operators: Annotated[
        str,
        typer.Option(
            "--operators",
            metavar="NAME",
            help="edgeseg: ours as functions, fast in TensorRT and run by any ONNX Runtime; standard: for every other tool.",
        ),
    ] = "edgeseg",
    as_json: JsonOption = False,
) -> None:
    """Export the trained network to model.onnx and check it against PyTorch; outside tolerance nothing is written."""
    from edgeseg.export.torch_onnx import export_folder
    from edgeseg.folder import GRAPH, open_folder

    folder = open_folder(model)
    with progress(f"exporting {folder.manifest.name}", quiet=as_json):
        manifest = export_folder(folder, dynamic, batch, half_weights, operators)
    parity, info = manifest.parity, manifest.files[GRAPH]
    assert parity is not None
    report = {"graph": folder.graph, "bytes": info.bytes, "sha256": info.sha256, **parity.model_dump()}
    if as_json:
        print_json(report)
        return
    print_lines(
        [
            f"{folder.graph}: {info.bytes / 1e6:.2f} MB, opset {parity.opset}",
            f"against PyTorch: max abs {parity.max_abs:.2e} (limit {parity.tolerance_abs:.2e}), "
            f"max rel {parity.max_rel:.2e}, argmax agreement {parity.argmax_agreement:.4%}",
        ]
    )
