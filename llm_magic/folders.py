"""Where files are kept between sessions."""

from __future__ import annotations

import os
from pathlib import Path

import platformdirs


def cache_folder() -> Path:
    """Of models, and of what is made for them: LLM_MAGIC_CACHE, or the user's cache folder."""
    chosen = os.environ.get("LLM_MAGIC_CACHE")
    return Path(chosen) if chosen else Path(platformdirs.user_cache_dir("llm_magic", appauthor=False))


def data_folder() -> Path:
    """Of what the user made and keeps: LLM_MAGIC_DATA, or the user's data folder."""
    chosen = os.environ.get("LLM_MAGIC_DATA")
    return Path(chosen) if chosen else Path(platformdirs.user_data_dir("llm_magic", appauthor=False))
