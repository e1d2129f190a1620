"""What is alive in a notebook: answers that can be questioned, and the sampling panel. All else here is drawn once."""

import dataclasses

import llm_magic.views  # noqa: F401  fills the table that this one completes
from llm_magic.faces import FACES
from llm_magic.generation import Generation, Samples, Score


def _view(value: Generation | Samples | Score):
    from llm_magic.widgets.answer import AnswerView  # here, since it brings ipywidgets

    return AnswerView(value)


FACES.update({kind: dataclasses.replace(FACES[kind], live=_view) for kind in (Generation, Samples, Score)})
