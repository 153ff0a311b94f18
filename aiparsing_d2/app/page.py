"""The page, made of Gradio's components, and the server that shows it.

Everything the page needs comes from the server itself: no fonts from elsewhere, no statistics of
its use.
"""

from __future__ import annotations

import html
import math
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from aiparsing_d2.counted import counted
from aiparsing_d2.inference import ParsedImage
from aiparsing_d2.inference.video_files import VIDEO_SUFFIXES
from aiparsing_d2.structures.part_labels import PartLabels

from .clip import FEWEST_PER_SECOND, Clip, is_clip
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
#status progress { width: 100%; }
.refused { color: var(--error-text-color); }
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
                "Drop a photograph or a clip: every person, body part and garment gets a mask. "
                f"At most {parser.max_megapixels:g} megapixels, and of a clip "
                f"{parser.max_frames / FEWEST_PER_SECOND:g} seconds. It goes to the machine that "
                "runs this page, and nowhere else."
            )
            self.upload = gr.State(None, time_to_live=_KEPT_SECONDS)
            self.clip = gr.State(None, time_to_live=_KEPT_SECONDS)
            self.file = gr.File(
                label="Picture or clip",
                file_types=["image", "video", *VIDEO_SUFFIXES],
                height=140,
                elem_id="file",
            )
            self.status = gr.HTML(elem_id="status")
            self.stop = gr.Button("Stop here", size="sm", visible=False, elem_id="stop")
            with gr.Row(visible=False) as self.results:
                with gr.Column(scale=3, min_width=320):
                    self.drawing = _picture("People and parts", "drawing", show_label=False)
                    self.video = gr.Video(
                        show_label=False, buttons=[], autoplay=True, loop=True, elem_id="video"
                    )
                    self.legend = gr.HTML(elem_id="legend")
                with gr.Column(scale=2, min_width=320):
                    self._add_controls(threshold)
            self._connect()

    def _add_controls(self, threshold: float) -> None:
        with gr.Row() as self.choices:
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
        self.again = gr.Button("Parse again with this score", size="sm", elem_id="again")
        with gr.Row():
            self.downloads = [
                _download("↓ Drawing", "download-drawing"),
                _download("↓ JSON", "download-json"),
                _download("↓ Label map", "download-parts"),
            ]
            self.clip_downloads = [
                _download("↓ Video", "download-video"),
                _download("↓ JSON lines", "download-jsonl"),
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
        of_pictures = [self.drawing, self.choices, self.part, *self.downloads]
        of_clips = [self.video, self.again, *self.clip_downloads]
        self._is_of_clips = {
            **dict.fromkeys(of_pictures, False),
            **dict.fromkeys(of_clips, True),
        }
        gr.on(
            [self.file.change, self.again.click],
            self.parse,
            [self.file, self.threshold, self.clip],
            [
                self.upload,
                self.clip,
                self.status,
                self.stop,
                self.results,
                self.legend,
                self.shown,
                *self._is_of_clips,
            ],
            # Another file ends the parsing of a clip, and no picture waits for it.
            trigger_mode="multiple",
            concurrency_limit=None,
            show_progress="hidden",
        ).then(self.show, chosen, seen, show_progress="hidden")
        self.stop.click(Clip.stop, self.clip, show_progress="hidden")
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

    def parse(
        self, path: str | None, threshold: float, running: Clip | None = None
    ) -> Iterator[dict[Any, Any]]:
        """Parse a file that was dropped on the page; None takes away the last one."""
        if running is not None:
            running.discard()
        cleared = {
            self.upload: None,
            self.clip: None,
            self.stop: gr.update(visible=False),
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
            if is_clip(path):
                yield from self._parse_clip(path, threshold)
            else:
                upload = self._parser.parse(path, threshold)
                yield {self.upload: upload, **self._result_updates(of_clip=False)}
        except UploadRefusedError as error:
            yield {
                self.status: f'<p class="refused" role="alert">{html.escape(str(error))}.</p>',
                self.stop: gr.update(visible=False),
            }

    def _parse_clip(self, path: str, threshold: float) -> Iterator[dict[Any, Any]]:
        clip = Clip(self._parser, path, threshold)
        yield {self.clip: clip}
        begun = time.monotonic()
        for _ in clip.parse(self._new_folder()):
            if clip.num_before:
                begun = time.monotonic()
            yield {
                self.status: _progress(clip, time.monotonic() - begun),
                self.stop: gr.update(visible=not clip.num_before),
            }
        if clip.is_discarded:
            return
        updates = self._result_updates(of_clip=True)
        for component, file in zip(
            [self.video, *self.clip_downloads], [clip.files[0], *clip.files], strict=True
        ):
            updates[component] = gr.update(value=str(file), visible=True)
        yield {
            self.status: _describe_clip(clip),
            self.legend: _legend(clip.part_labels, clip.parts),
            self.stop: gr.update(visible=False),
            **updates,
        }

    def _result_updates(self, *, of_clip: bool) -> dict[Any, Any]:
        """Show the components of a clip's results, or those of a picture's."""
        return {
            self.results: gr.update(visible=True),
            **{
                component: gr.update(visible=of_clip == is_of_clips)
                for component, is_of_clips in self._is_of_clips.items()
            },
        }

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
            self.legend: _legend(
                drawn.part_labels, {part for person in drawn for part in person.parts}
            )
            if labels
            else "",
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
    threshold: float = 0.38,
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
            for clip in list(parser.clips):
                clip.discard()
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


def _progress(clip: Clip, seconds: float) -> str:
    """Say how far the parsing of a clip has come.

    Args:
        clip: which.
        seconds: how long that took.
    """
    name = html.escape(clip.name)
    if clip.num_before:
        before = counted(clip.num_before, "clip")
        return f"<p>{name} waits for {before} before it …</p><progress></progress>"
    if clip.num_frames is None or not clip.num_done:
        return f"<p>Looking for people in {name}: {clip.num_done} frames …</p><progress></progress>"
    left = math.ceil(seconds / clip.num_done * max(clip.num_frames - clip.num_done, 0))
    return (
        f"<p>Looking for people in {name}: frame {clip.num_done} of {clip.num_frames}, about "
        f"{f'{left} s' if left < 100 else f'{left / 60:.0f} min'} left …</p>"
        f'<progress value="{clip.num_done}" max="{clip.num_frames}"></progress>'
    )


def _describe_clip(clip: Clip) -> str:
    """Say what was found, and what was left out."""
    frames = f"{clip.num_done} frames"
    if clip.every > 1:
        frames += f", one of every {clip.every}"
    if clip.num_people:
        number = "1 person" if clip.num_people == 1 else f"{clip.num_people} different people"
        sentences = [f"{number} in {frames}."]
    else:
        sentences = [f"Nobody was found in {frames}. A lower score finds more people."]
    if clip.is_cut or clip.is_stopped:
        sentences.append(f"What comes after {clip.seconds:.1f} s was left out.")
    if clip.num_broken:
        sentences.append(f"{counted(clip.num_broken, 'piece')} of the file could not be decoded.")
    return f"<p>{' '.join(sentences)}</p>"


def _legend(part_labels: PartLabels, present: set[str]) -> str:
    """Show the colours of the parts that are present."""
    colors = dict(zip(part_labels.names, part_labels.colors, strict=True))
    entries = [
        f'<span><i style="background: rgb{color}"></i>{html.escape(name)}</span>'
        for name, color in colors.items()
        if name in present
    ]
    return f'<div class="legend">{"".join(entries)}</div>'
