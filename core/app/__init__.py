"""`genzoo app`: draw a picture, and see what every model makes of it; a page of controls on this machine.

What a model is asked depends on its capabilities alone (`answers.py`); here is where things stand on the page and
which control leads to which answer. Gradio draws it (extra `app`).
"""

from collections.abc import Sequence
from typing import Any

from genzoo.app import answers
from genzoo.app.answers import Shown, as_html

STYLE = """
.answers table {border-collapse: collapse; width: 100%}
.answers td, .answers th {padding: .4em .8em; text-align: left}
.answers img {image-rendering: pixelated; max-width: none} .answers .grey img {filter: invert(1)}
.token {padding: .1em 0; border-radius: .2em}
"""


def build(models: Sequence[Shown]) -> Any:
    """The page for models of one kind of data.

    Args:
        models: each with its name.

    Returns:
        A `gradio.Blocks`, not launched.

    Raises:
        ValueError: of models of different shapes, or of data that nothing can be shown of.
    """
    import gradio as gr

    kind = answers.kind_of(models)
    title = f"genzoo: {', '.join(model.name for model in models)}"
    with gr.Blocks(title=title, analytics_enabled=False) as page:
        gr.Markdown(f"## What do {len(models)} models make of it?" if len(models) > 1 else f"## {models[0].name}")
        if kind == "image":
            _pictures(gr, models)
        if any(model.reads for model in models):
            _texts(gr, models)
        _samples(gr, models, kind)
    return page


def _pictures(gr: Any, models: Sequence[Shown]) -> None:
    """Draw, erase, complete; and walk from one drawing to another."""
    ink = answers.is_ink(models)
    paper = "white" if ink else "#808080"
    paints = ["#000000", "#a0a0a0"] if ink else ["#d04040", "#40a040", "#4060d0", "#f0c040", "#000000", "#ffffff"]
    editor: dict[str, Any] = {
        "type": "pil",
        "image_mode": "RGBA",
        "canvas_size": (answers.CANVAS, answers.CANVAS),
        "fixed_canvas": True,
        "layers": False,
        "transforms": (),
        "sources": ("upload", "clipboard"),
    }
    with gr.Tab("Draw"):
        gr.Markdown("Draw or upload. **Pink** makes a hole: then every model fills in what it covers.")
        with gr.Row():
            with gr.Column(scale=1):
                brush = gr.Brush(default_size=24, colors=[*paints, answers.HOLE], color_mode="fixed")
                painted = gr.ImageEditor(
                    answers.blank(paper), brush=brush, label="your picture", elem_id="canvas", **editor
                )
                seed = gr.Slider(0, 1000, 0, step=1, label="seed of the completions")
                another = gr.Button("Another picture")
            with gr.Column(scale=1):
                found = gr.HTML(as_html([]), elem_id="answers", elem_classes="answers")
        gr.on(
            [painted.input, painted.change, painted.upload, painted.clear, seed.change],
            lambda *given: answers.about(models, *given),
            [painted, seed],
            found,
            trigger_mode="always_last",  # of many strokes the last is answered
            show_progress="hidden",
        )
        another.click(lambda seed: (answers.drawn(models, int(seed)), int(seed) + 1), seed, [painted, seed])
    walkers = [model for model in models if model.interpolates]
    if walkers:
        with gr.Tab("Walk"):
            gr.Markdown("From one drawing to another, through what each model takes for data.")
            with gr.Row():
                brush = gr.Brush(default_size=24, colors=paints, color_mode="fixed")
                ends = [
                    gr.ImageEditor(answers.drawn(models, number), brush=brush, label=label, **editor)
                    for number, label in ((1, "from"), (2, "to"))
                ]
            go, walk = gr.Button("Walk", variant="primary"), gr.HTML(as_html([]), elem_classes="answers")
            go.click(lambda a, b: answers.walk(walkers, a, b), ends, walk)


def _texts(gr: Any, models: Sequence[Shown]) -> None:
    """A text, each token of which is as red as it is surprising."""
    with gr.Tab("Surprise"):
        gr.Markdown("The redder, the more surprising: −log₂ p(token | all before it), in bits.")
        begin = "To be, or not to be, that is the question:"
        text = gr.Textbox(begin, lines=5, label="your text")
        found = gr.HTML(answers.surprise(models, begin), elem_classes="answers")
        text.change(lambda value: answers.surprise(models, value), text, found, trigger_mode="always_last")


def _samples(gr: Any, models: Sequence[Shown], kind: str) -> None:
    """Samples, with the controls that at least one of the models has."""
    with gr.Tab("Sample"):
        with gr.Row():
            controls: dict[str, Any] = {"seed": gr.Slider(0, 1000, 0, step=1, label="seed")}
            taken = {name for model in models for name in model.takes}
            if known := answers.classes(models):
                controls["labels"] = gr.Dropdown([("any", -1), *known], value=-1, label="class")
            if known and "guidance" in taken:
                own = next(getattr(model.module, "guidance", 1) for model in models if "guidance" in model.takes)
                controls["guidance"] = gr.Slider(0, 6, own, step=0.25, label="guidance")
            if "steps" in taken:
                controls["steps"] = gr.Slider(2, 100, 20, step=1, label="steps")
            if "solver" in taken:
                controls["solver"] = gr.Dropdown(["its own", *answers.SOLVERS], value="its own", label="solver")
            if "temperature" in taken:
                controls["temperature"] = gr.Slider(0.1, 2, 0.8, step=0.05, label="temperature")
            if "prompt" in taken and kind == "tokens":
                controls["prompt"] = gr.Textbox("", label="prompt")
        go = gr.Button("Draw", variant="primary", elem_id="draw")
        table = {"value": as_html([]), "elem_classes": "answers", "elem_id": "samples"}
        shown = [gr.Audio(label=model.name) for model in models] if kind == "waveform" else gr.HTML(**table)

        def drawn(*values: Any) -> Any:
            found = answers.samples(models, kind, dict(zip(controls, values, strict=True)))
            return found[0] if kind == "waveform" and len(models) == 1 else found  # of one component, its own value

        go.click(drawn, list(controls.values()), shown)
