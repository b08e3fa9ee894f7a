"""Texts that are hard on tokenizers: scripts, blanks, code, emoji, odd characters."""

TEXTS = (
    "",
    " ",
    "Hello, world!",
    "Once upon a time",
    "  two leading spaces and a trailing one ",
    "\n\n\tdef f(x):\n\t\treturn x ** 2  # a comment\n",
    "don't we'll I'M they've 1234567 3.14159 0x1F",
    "Ünïcödé naïve café Ångström ﬁ ™",
    "Привет, как дела? Ёлка.",
    "今天天气很好。日本語のテキスト、テスト。한국어 문장",
    "नमस्ते दुनिया, आप कैसे हैं? क्षत्रिय",
    "สวัสดีชาวโลก ไม่มีช่องว่าง",
    "مرحبا بالعالم",
    "emoji 🙂👨‍👩‍👧‍👦🇫🇷🏳️‍🌈 and ☕",
    "zero\u200bwidth, soft\u00adhyphen, nbsp\u00a0here, combining e\u0301, bom\ufeff",
    "�� replacement \ufffd and private \ue000",
    "a" * 300,
    "<|im_start|>user\nhi<|im_end|>",
    "<s>[INST] hi [/INST]</s> <unk> <|endoftext|> <|user|>\n\n <tool_call>",
    "ends with a space ",
)
