"""How much memory of its own a process holds: the beginning of a program that measures it."""

# a process with torch is where the count begins
BEFORE = r"""
import re, torch
torch.ones(64, 64) @ torch.ones(64, 64)
def anonymous():
    return int(re.search(r"RssAnon:\s+(\d+)", open("/proc/self/status").read())[1]) * 1024
before = anonymous()
import llm_magic
"""
