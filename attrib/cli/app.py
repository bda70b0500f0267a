"""`attrib app`: the web page."""

from __future__ import annotations

from typing import Annotated

import typer

from attrib.cli.options import Device

__all__ = ["run"]


def run(
    model: Annotated[
        list[str] | None,
        typer.Option(
            "--model", "-m", help="Model that visitors may choose, repeatable; demo if left."
        ),
    ] = None,
    method: Annotated[
        list[str] | None,
        typer.Option(help="Method that visitors may choose, repeatable; the quick ones if left."),
    ] = None,
    allow_models: Annotated[
        bool, typer.Option("--allow-models", help="Visitors may type other published models.")
    ] = False,
    host: Annotated[str, typer.Option(help="Address to listen at.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen at.")] = 7860,
    max_megabytes: Annotated[float, typer.Option(help="Largest file that is taken.")] = 10,
    max_megapixels: Annotated[float, typer.Option(help="Largest picture that is taken.")] = 12,
    timeout: Annotated[float, typer.Option(help="Seconds after which a request ends.")] = 60,
    concurrency: Annotated[int, typer.Option(help="Requests at once; others queue.")] = 1,
    queue: Annotated[int, typer.Option(help="Requests that may wait.")] = 16,
    kept_models: Annotated[int, typer.Option(help="Models that stay in memory.")] = 2,
    device: Device = None,
) -> None:
    """Show a web page on which pictures are explained; only this machine sees it by default."""
    from attrib.app import AppOptions, serve

    options = AppOptions(
        models=tuple(model or ["demo"]),
        methods=tuple(method or []),
        allow_models=allow_models,
        max_megabytes=max_megabytes,
        max_megapixels=max_megapixels,
        timeout=timeout,
        concurrency=concurrency,
        queue=queue,
        kept_models=kept_models,
        device=device,
    )
    serve(options, host=host, port=port)
