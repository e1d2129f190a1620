"""Values to pictures: plain text, a coloured terminal, and HTML without script."""

from llm_magic.generation import FACES, Distribution, Face, Generation, ModelInfo, ModelTable, Prompt, Samples, Score
from llm_magic.views import answer, columns, distribution, prompt, tables

FACES.update(
    {
        Generation: Face(answer.render_text, answer.render_html),
        Samples: Face(columns.render_text, columns.render_html),
        Score: Face(answer.render_text, answer.render_html),
        Distribution: Face(distribution.render_text, distribution.render_html),
        Prompt: Face(prompt.render_text, prompt.render_html),
        ModelInfo: Face(tables.render_info_text, tables.render_info_html),
        ModelTable: Face(tables.render_models_text, tables.render_models_html),
    }
)
