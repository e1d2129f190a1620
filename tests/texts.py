"""Texts that tokenizers stumble over, and texts to score: shared by tests."""

ODD = [
    "Hello, world! It's 3.14 o'clock; they'll've gone.",
    "def f(x):\n\treturn {k: v ** 2 for k, v in x.items()}  # squares\n\n\nclass A:\n    pass\n",
    "😀👩‍👩‍👧‍👦🇩🇪👍🏽 emoji🙂mixed",
    "日本語のテキスト、中文文本，한국어 텍스트",
    "Привет, мир! Ελληνικά العربية עברית हिन्दी ไทย",
    "²³ ½ ١٢٣ ४५६ Ⅷ 12345 1,000,000 ①②",
    "a\u00a0b\u2003c\u3000d\u2028e\tf  g   h\r\ni \n \n\n j    ",
    "   leading", "trailing   ", "\n\n\n", "\t\t x", " ", "", "  \n  \n",
    "\x00\x01\x1b[31mred\x1b[0m\x7f\u202eabc\u200bdef\ufeff",
    "naïve café e\u0301 ﬁ Ǆ ß İ",
    "CamelCase snake_case kebab-case UPPER 'quoted' \"double\" `tick`",
    "<|im_start|>user\nhi<|im_end|> <|endoftext|> <|im_end|",
    "https://example.com/a?b=c&d=%20#frag user@mail.org C:\\path",
    "a" * 300, "ab" * 100 + " " * 50 + "!" * 40,
    "’curly’ “quotes” — dash… it’s we're I'M you'RE",
]  # fmt: skip

PROSE = """The lighthouse had stood at the end of the point for a hundred and forty years, and in that time it had
been struck by lightning eleven times. Nobody in the village could say who had first counted. The keeper, a woman of
few words named Anna Holm, kept a notebook in which she wrote the weather, the ships, and now and then a sentence
about the birds. When the light was made automatic she was asked to leave, but she stayed on in the small white house,
and went up the stairs every evening as before, to see that the lamp came on by itself. It always did. In the
winter of the great storm, when the
power failed along the whole coast, three fishing boats found their way home by a light that should not have been
burning, and nobody asked her about it."""

CODE = '''def moving_average(values, window):
    """Return the mean of each window of values."""
    if window <= 0:
        raise ValueError("window must be positive")
    total = sum(values[:window])
    result = [total / window]
    for i in range(window, len(values)):
        total += values[i] - values[i - window]
        result.append(total / window)
    return result


if __name__ == "__main__":
    print(moving_average([1, 2, 3, 4, 5, 6], 3))
'''

DIALOGUE = """"Did you close the window?" she asked.
"I thought you had," he said, and went to look. The curtain was wet, and there was a leaf on the floor.
"Well?"
"It was open. It has been raining in for an hour, I should think."
She laughed. "Then the plants will be happy, at least. What is the time?"
"Ten past seven. The train leaves at eight, so if we want to catch it we should call a taxi now." """
