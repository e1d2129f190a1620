"""The sampling controls as ipywidgets: of one object's traits, such as the notebook's defaults, or of their own."""

from __future__ import annotations

import dataclasses
from typing import Any

import ipywidgets as ipw
import traitlets

from llm_magic.errors import LLMError, OptionError, nearest
from llm_magic.generation import MAX_SAMPLES, Sampling
from llm_magic.subshells import answer_on_subshells

PRESETS = {
    "default": Sampling(),
    "greedy": Sampling(temperature=0.0, repetition_penalty=1.0),
    "careful": Sampling(temperature=0.5, top_k=0, top_p=0.9, repetition_penalty=1.05),
    "inventive": Sampling(temperature=1.0, top_k=0, top_p=0.95, repetition_penalty=1.1),
    "the model's own": Sampling(temperature=1.0, top_k=0, top_p=1.0, min_p=0.0, repetition_penalty=1.0),
}
_OF_PRESETS = ("temperature", "top_k", "top_p", "min_p", "repetition_penalty")
_FIELDS = tuple(field.name for field in dataclasses.fields(Sampling))
_CUSTOM = "custom"
_WIDE = {"description_width": "9em"}
_NARROW = {"width": "24em"}


class SamplingPanel(ipw.VBox):
    """Controls named as the options are: `panel.temperature.value`, `panel.top_k.value`, …

    Each is an ipywidget that can be linked, observed and laid out elsewhere. `value` is all of them as one `Sampling`,
    checked as the options are. `source`, an object with traits of the same names, is changed with the controls, and
    they with it.
    """

    value = traitlets.Instance(Sampling)

    def __init__(self, source: traitlets.HasTraits | None = None, start: Sampling | None = None):
        self.temperature = _slider(ipw.FloatSlider, "temperature", 0, 2, 0.05)
        self.top_k = _slider(ipw.IntSlider, "top-k (0: off)", 0, 200, 1)
        self.top_p = _slider(ipw.FloatSlider, "top-p (1: off)", 0.01, 1, 0.01)
        self.min_p = _slider(ipw.FloatSlider, "min-p (0: off)", 0, 0.99, 0.01)
        self.repetition_penalty = _slider(ipw.FloatSlider, "repetition penalty", 0.8, 2, 0.01)
        self.max_tokens = _box(ipw.BoundedIntText, "max tokens", min=1, max=1_000_000)
        self.stop = _box(ipw.TagsInput, "stop", allow_duplicates=False)
        self.stop.placeholder = "type one, then Enter"
        self.seed = _box(ipw.BoundedIntText, "seed", min=0, max=2**53)  # a page's numbers are exact up to there
        self.fresh_seed = ipw.Checkbox(description="fresh seed for each prompt", indent=False)
        self.samples = _slider(ipw.IntSlider, "samples", 1, MAX_SAMPLES, 1)
        self.preset = ipw.Dropdown(options=[_CUSTOM, *PRESETS], description="preset", style=_WIDE, layout=_NARROW)
        names = [*_FIELDS, "fresh_seed", "samples"]
        self.controls: dict[str, ipw.Widget] = {name: getattr(self, name) for name in names}
        for name, value in dataclasses.asdict(start or Sampling()).items():
            self._make_room(name, value)
            self.controls[name].value = list(value) if name == "stop" else value
        label = ipw.Label("stop", layout={"width": "9em", "display": "flex", "justify_content": "flex-end"})
        stop = ipw.HBox([label, self.stop])
        columns = (
            [self.preset, self.temperature, self.top_k, self.top_p, self.min_p, self.repetition_penalty],
            [self.max_tokens, stop, self.seed, self.fresh_seed, self.samples],
        )
        boxes = [ipw.VBox(column) for column in columns]
        rows = ipw.HBox(boxes, layout={"flex_flow": "row wrap"})
        super().__init__([rows], value=start or Sampling())
        self._parts = [*self.controls.values(), self.preset, label, stop, *boxes, rows, self]
        self._links: list[traitlets.link] = []
        for widget in self._parts:
            answer_on_subshells(widget.comm)
        for control in self.controls.values():
            control.observe(self._gather, "value")
        self.preset.observe(self._apply_preset, "value")
        if source is not None:
            self._bind(source)
        self._gather()

    def _bind(self, source: traitlets.HasTraits) -> None:
        names = [name for name in self.controls if source.has_trait(name)]
        for name in names:
            self._make_room(name, getattr(source, name))
            self._links.append(traitlets.link((source, name), (self.controls[name], "value")))
        self._source, self._source_names = source, names
        # before the link hears of it: a slider's range would cut what is set from outside
        source.observe(self._hear_source, names)

    def _hear_source(self, change) -> None:
        self._make_room(change["name"], change["new"])
        self.controls[change["name"]].value = change["new"]

    def _make_room(self, name: str, value: Any) -> None:
        control = self.controls[name]
        if control.has_trait("max") and value > control.max:
            control.max = value
        if control.has_trait("min") and value < control.min:
            control.min = value

    def set(self, **values) -> None:
        """Change several controls; raises `OptionError` for what no option would take, and changes none then."""
        for name in values:
            if name not in self.controls:
                raise OptionError(f"there is no control {name!r}", f"the nearest are {nearest(name, self.controls)}")
        dataclasses.replace(self.value, **{name: value for name, value in values.items() if name in _FIELDS})
        for name, value in values.items():
            self._make_room(name, value)
            self.controls[name].value = value

    def _gather(self, change=None) -> None:
        values = {name: self.controls[name].value for name in _FIELDS}
        try:
            self.value = Sampling(**values | {"stop": tuple(values["stop"])})
        except LLMError:  # half typed
            return
        shown = {name: round(float(values[name]), 6) for name in _OF_PRESETS}
        names = [n for n, p in PRESETS.items() if {name: float(getattr(p, name)) for name in _OF_PRESETS} == shown]
        self.preset.unobserve(self._apply_preset, "value")
        self.preset.value = names[0] if names else _CUSTOM
        self.preset.observe(self._apply_preset, "value")

    def _apply_preset(self, change) -> None:
        if change["new"] in PRESETS:
            preset = PRESETS[change["new"]]
            self.set(**{name: getattr(preset, name) for name in _OF_PRESETS})

    @traitlets.observe("value")
    def _hear_value(self, change) -> None:
        """Set as a whole, it sets the controls."""
        for name, value in dataclasses.asdict(change["new"]).items():
            if name in getattr(self, "controls", {}) and self.controls[name].value != value:
                self._make_room(name, value)
                self.controls[name].value = list(value) if name == "stop" else value

    def close(self) -> None:
        """Free all its widgets in the kernel and in the page."""
        for link in self._links:
            link.unlink()
        if self._links:
            self._source.unobserve(self._hear_source, self._source_names)
        self._links.clear()
        for widget in self._parts:
            helpers = [getattr(widget, name) for name in ("layout", "style") if widget.has_trait(name)]
            (ipw.Widget.close if widget is self else type(widget).close)(widget)
            for helper in helpers:
                helper.close()


def _slider(kind: type, label: str, low: float, high: float, step: float) -> ipw.Widget:
    return kind(description=label, min=low, max=high, step=step, style=_WIDE, layout=_NARROW, continuous_update=True)


def _box(kind: type, label: str, **options) -> ipw.Widget:
    if kind is ipw.TagsInput:
        return kind(layout={"width": "14em"}, **options)
    return kind(description=label, style=_WIDE, layout=_NARROW, **options)
