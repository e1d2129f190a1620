"""Values to pictures: plain text, a coloured terminal, and HTML without script."""

from llm_magic.choices import Choices, Ranking
from llm_magic.faces import FACES, Face
from llm_magic.generation import (
    Comparison,
    Distribution,
    Generation,
    ModelInfo,
    ModelTable,
    Prompt,
    Samples,
    Score,
)
from llm_magic.records import Records
from llm_magic.study.values import Attention, Lens, Neighbors
from llm_magic.tasks import Parts
from llm_magic.views import (
    answer,
    attention,
    bundle,
    choices,
    columns,
    compare,
    distribution,
    lens,
    neighbors,
    prompt,
    records,
    tables,
)


def _data(value: Generation | Samples | Score) -> dict:
    return {bundle.MIME: bundle.encode_tokens(value)}


FACES.update(
    {
        Generation: Face(answer.render_text, answer.render_html, _data),
        Samples: Face(columns.render_text, columns.render_html, _data),
        Score: Face(answer.render_text, answer.render_html, _data),
        Comparison: Face(compare.render_text, compare.render_html),
        Distribution: Face(distribution.render_text, distribution.render_html),
        Attention: Face(attention.render_text, attention.render_html),
        Neighbors: Face(neighbors.render_text, neighbors.render_html),
        Lens: Face(lens.render_text, lens.render_html),
        Choices: Face(choices.render_choices_text, choices.render_choices_html),
        Ranking: Face(choices.render_ranking_text, choices.render_ranking_html),
        Parts: Face(choices.render_parts_text, choices.render_parts_html),
        Records: Face(records.render_text, records.render_html),
        Prompt: Face(prompt.render_text, prompt.render_html),
        ModelInfo: Face(tables.render_info_text, tables.render_info_html),
        ModelTable: Face(tables.render_models_text, tables.render_models_html),
    }
)
