"""A Dash application with a cache in each process: a dataset is loaded once, and then shown from memory."""

from __future__ import annotations

import os
import threading

from dash import Dash, Input, Output, dcc, html

app = Dash(__name__, title="dashboard")
application = app.server

_datasets: dict[str, list[int]] = {}
_lock = threading.Lock()


def _dataset(name: str) -> tuple[list[int], bool]:
    """The dataset, and whether it was here already."""
    with _lock:
        here = name in _datasets
        if not here:
            _datasets[name] = [len(name) * number % 7 for number in range(20)]
        return _datasets[name], here


app.layout = html.Div(
    [
        dcc.Dropdown(["rain", "wind"], "rain", id="name"),
        dcc.Graph(id="graph"),
        html.Pre(id="told"),
    ]
)


@app.callback(Output("graph", "figure"), Output("told", "children"), Input("name", "value"))
def show(name: str) -> tuple[dict[str, object], str]:
    numbers, here = _dataset(name)
    told = f"{'from the cache' if here else 'loaded'} by {os.getpid()}"
    return {"data": [{"type": "bar", "y": numbers}]}, told
