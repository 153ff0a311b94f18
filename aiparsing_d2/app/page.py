"""The page, made of Gradio's components, and the server that shows it.

Everything the page needs comes from the server itself: no fonts from elsewhere, no statistics of
its use.
"""

from __future__ import annotations

import html
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from aiparsing_d2.inference import ParsedImage

from .upload import Upload, UploadParser, UploadRefusedError

try:
    import gradio as gr
except ImportError as error:
    raise ImportError("the page needs Gradio: pip install 'aiparsing_d2[app]'") from error

__all__ = ["Page", "serving"]

_EVERYBODY = -1
_NOBODY = [("Everybody (0)", _EVERYBODY)]
_LOWEST_THRESHOLD = 0.05
# What was uploaded, found and made is forgotten after this time, or when the page is closed.
_KEPT_SECONDS = 3600
_MOST_SESSIONS = 20

_CSS = """
.gradio-container { max-width: 1200px !important; width: 100%; margin: auto; }
#drawing img { cursor: crosshair; }
#cutout img { background: repeating-conic-gradient(#bbb 0 25%, #fff 0 50%) 0 / 20px 20px; }
.legend { display: flex; flex-wrap: wrap; gap: 4px 14px; }
.legend span { white-space: nowrap; }
.legend i { display: inline-block; width: .9em; height: .9em; margin-right: .35em;
  border: 1px solid #8888; border-radius: 3px; vertical-align: -.1em; }
.refused { color: #b91c1c; }
.dark .refused { color: #fca5a5; }
"""


class Page:
    """The page's components, and what happens to them.

    Handlers take the values of components and give values, or ``gr.update``, by component.

    Attributes:
        blocks: what Gradio serves.
    """

    def __init__(self, parser: UploadParser, folder: Path, threshold: float):
        """
        Args:
            parser: parses what is uploaded.
            folder: for the files to look at and download.
            threshold: lowest score of a person, to begin with.
        """
        self._parser = parser
        self._folder = folder
        with gr.Blocks(
            title="aiparsing",
            analytics_enabled=False,
            delete_cache=(_KEPT_SECONDS // 4, _KEPT_SECONDS),
        ) as self.blocks:
            gr.Markdown(
                "# People and their parts\n"
                "Drop a photograph: every person, body part and garment in it gets a mask. "
                f"At most {parser.max_megapixels:g} megapixels. It goes to the machine that runs "
                "this page, and nowhere else."
            )
            self.upload = gr.State(None, time_to_live=_KEPT_SECONDS)
            self.file = gr.File(label="Picture", file_types=["image"], height=140, elem_id="file")
            self.status = gr.HTML(elem_id="status")
            with gr.Row(visible=False) as self.results:
                with gr.Column(scale=3, min_width=320):
                    self.drawing = _picture("People and parts", "drawing", show_label=False)
                    self.legend = gr.HTML(elem_id="legend")
                with gr.Column(scale=2, min_width=320):
                    self._add_controls(threshold)
            self._connect()

    def _add_controls(self, threshold: float) -> None:
        with gr.Row():
            self.shown = gr.Dropdown(_NOBODY, label="Show", scale=2, min_width=160, elem_id="shown")
            self.labels = gr.Checkbox(
                True, label="Labels", scale=1, min_width=100, elem_id="labels"
            )
        self.threshold = gr.Slider(
            _LOWEST_THRESHOLD,
            1,
            threshold,
            step=0.01,
            label="Lowest score of a person",
            buttons=[],
            elem_id="threshold",
        )
        with gr.Row():
            self.downloads = [
                _download("↓ Drawing", "download-drawing"),
                _download("↓ JSON", "download-json"),
                _download("↓ Label map", "download-parts"),
            ]
        self.part = gr.Dropdown(
            [], label="Part: choose it, or click it in the picture", elem_id="part"
        )
        with gr.Row(visible=False) as self.part_results:
            with gr.Column(min_width=150):
                self.mask = _picture("Mask", "mask", height=240)
                mask_download = _download("↓ Mask", "download-mask")
            with gr.Column(min_width=150):
                self.cutout = _picture("Cut-out", "cutout", height=240)
                cutout_download = _download("↓ Cut-out", "download-cutout")
        self.part_downloads = [mask_download, cutout_download]

    def _connect(self) -> None:
        chosen = [self.upload, self.shown, self.threshold, self.labels, self.part]
        seen = [self.upload, self.status, self.shown, self.drawing, self.legend, self.part]
        seen += self.downloads
        self.file.change(
            self.parse,
            [self.file, self.threshold],
            [self.upload, self.status, self.results, self.shown, self.part],
            show_progress="hidden",
        ).then(self.show, chosen, seen, show_progress="hidden")
        gr.on(
            [self.shown.input, self.labels.input, self.threshold.change],
            self.show,
            chosen,
            seen,
            trigger_mode="always_last",
            show_progress="minimal",
            show_progress_on=self.drawing,
        )
        self.drawing.select(self.pick, chosen[:3], self.part, show_progress="hidden")
        self.part.change(
            self.show_part,
            [self.upload, self.part],
            [self.part_results, self.mask, self.cutout, *self.part_downloads],
            show_progress="minimal",
            show_progress_on=self.part,
        )

    def parse(self, path: str | None, threshold: float) -> Iterator[dict[Any, Any]]:
        """Parse a file that was dropped on the page; None takes away the last one."""
        cleared = {
            self.upload: None,
            self.results: gr.update(visible=False),
            self.shown: gr.update(choices=_NOBODY, value=_EVERYBODY),
            self.part: gr.update(choices=[], value=None),
        }
        if path is None:
            yield {**cleared, self.status: ""}
            return
        name = html.escape(Path(path).name)
        yield {**cleared, self.status: f"<p>Looking for people in {name} …</p>"}
        try:
            upload = self._parser.parse(path, threshold)
        except UploadRefusedError as error:
            yield {self.status: f'<p class="refused" role="alert">{html.escape(str(error))}.</p>'}
            return
        yield {self.upload: upload, self.results: gr.update(visible=True)}

    def show(
        self,
        upload: Upload | None,
        shown: int,
        threshold: float,
        labels: bool,
        part: str | None = None,
    ) -> dict[Any, Any]:
        """Draw those who are to be shown, and make the files to download."""
        if upload is None:
            return {self.upload: None}
        upload = self._parser.with_threshold(upload, threshold)
        people = upload.people(threshold)
        if shown >= len(people):
            shown = _EVERYBODY
        parts = _part_choices(people)
        if part not in [value for _, value in parts]:
            part = None
        drawn = people if shown == _EVERYBODY else upload.person(shown)
        folder = self._new_folder()
        files = [
            upload.save_drawing(drawn, folder, labels=labels),
            *upload.save_data(drawn, folder),
        ]
        return {
            self.upload: upload,
            self.status: _describe(people, threshold),
            self.shown: gr.update(choices=_people_choices(people), value=shown),
            self.drawing: str(files[0]),
            self.legend: _legend(drawn) if labels else "",
            self.part: gr.update(choices=parts, value=part),
            **{button: str(file) for button, file in zip(self.downloads, files, strict=True)},
        }

    def pick(
        self, upload: Upload | None, shown: int, threshold: float, event: gr.SelectData
    ) -> str | None:
        """Choose the part that was clicked, in pixels of the drawing."""
        if upload is None:  # forgotten
            return None
        people = range(len(upload.people(threshold))) if shown == _EVERYBODY else [shown]
        x, y = event.index
        part = upload.part_at(x, y, people)
        return None if part is None else "/".join(map(str, part))

    def show_part(self, upload: Upload | None, part: str | None) -> dict[Any, Any]:
        """Show the mask and the cut-out of the part that is chosen, and offer them as files."""
        if upload is None or not part:
            return {self.part_results: gr.update(visible=False)}
        index, _, name = part.partition("/")
        mask, cutout = map(str, upload.save_part(int(index), name or None, self._new_folder()))
        return {
            self.part_results: gr.update(visible=True),
            self.mask: mask,
            self.cutout: cutout,
            self.part_downloads[0]: mask,
            self.part_downloads[1]: cutout,
        }

    def _new_folder(self) -> Path:
        return Path(tempfile.mkdtemp(dir=self._folder))


@contextmanager
def serving(
    parser: UploadParser,
    *,
    threshold: float = 0.26,
    host: str = "127.0.0.1",
    port: int | None = None,
    max_megabytes: float = 64,
) -> Iterator[str]:
    """Serve the page while the body of the ``with`` statement runs; gives its address.

    Args:
        parser: parses what is uploaded.
        threshold: lowest score of a person, to begin with.
        host: the address to listen at; "0.0.0.0" lets other machines in.
        port: None takes the first free one from 7860 on.
        max_megabytes: larger uploads are refused.

    Raises:
        OSError: the port is taken, or no port is free.
    """
    with tempfile.TemporaryDirectory(prefix="aiparsing_app_") as folder:
        os.environ["GRADIO_TEMP_DIR"] = folder  # where Gradio keeps what is uploaded
        page = Page(parser, Path(folder), threshold)
        try:
            yield _launch(page.blocks, host, port, max_megabytes)
        finally:
            page.blocks.close(verbose=False)
            del os.environ["GRADIO_TEMP_DIR"]


def _launch(blocks: gr.Blocks, host: str, port: int | None, max_megabytes: float) -> str:
    try:
        _, address, _ = blocks.launch(
            server_name=host,
            server_port=port,
            share=False,
            quiet=True,
            prevent_thread_lock=True,
            footer_links=[],
            run_history=False,
            ssr_mode=False,
            mcp_server=False,
            theme=gr.themes.Default(font="system-ui", font_mono="monospace"),
            css=_CSS,
            max_file_size=int(max_megabytes * 1e6),
            state_session_capacity=_MOST_SESSIONS,
        )
    except OSError as error:
        ports = f"port {port}" if port else "any port from 7860 on"
        raise OSError(f"cannot listen at {host}, {ports}: it is taken, or not allowed") from error
    return address


def _picture(label: str, elem_id: str, **options: Any) -> gr.Image:
    return gr.Image(
        label=label,
        format="png",
        interactive=False,
        buttons=["fullscreen"],
        elem_id=elem_id,
        **options,
    )


def _download(label: str, elem_id: str) -> gr.DownloadButton:
    return gr.DownloadButton(label, size="sm", min_width=90, elem_id=elem_id)


def _name(index: int) -> str:
    return f"Person {index + 1}"


def _people_choices(people: ParsedImage) -> list[tuple[str, int]]:
    """Names and values of whom to show."""
    everybody = f"Everybody ({len(people)})"
    single = [(f"{_name(i)} ({person.score:.2f})", i) for i, person in enumerate(people)]
    return [(everybody, _EVERYBODY), *single]


def _part_choices(people: ParsedImage) -> list[tuple[str, str]]:
    """Names and values of the parts: "0/Hair", and "0/" for the whole person."""
    return [
        (f"{_name(i)}: {part or 'everything'}", f"{i}/{part}")
        for i, person in enumerate(people)
        for part in ("", *person.parts)
    ]


def _describe(people: ParsedImage, threshold: float) -> str:
    """Say what was found."""
    if not len(people):
        return (
            f"<p>Nobody was found with a score of {threshold:.2f} or more. A lower one finds more "
            "people, and more that are none.</p>"
        )
    height, width = people.image_size
    number = "1 person" if len(people) == 1 else f"{len(people)} people"
    return f"<p>{number} in a picture of {width} × {height} pixels.</p>"


def _legend(people: ParsedImage) -> str:
    """Show the colours of the parts that the people have."""
    colors = dict(zip(people.part_labels.names, people.part_labels.colors, strict=True))
    present = {part for person in people for part in person.parts}
    entries = [
        f'<span><i style="background: rgb{color}"></i>{html.escape(name)}</span>'
        for name, color in colors.items()
        if name in present
    ]
    return f'<div class="legend">{"".join(entries)}</div>'
