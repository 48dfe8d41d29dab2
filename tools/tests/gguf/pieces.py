#!/usr/bin/env python3
"""Makes pieces.json beside this file: a small SentencePiece vocabulary as Llama's are (BPE, bytes for what it lacks, a
space put before a text, spaces kept), and the ids that SentencePiece makes of texts. Made with sentencepiece 0.2.3.

    pip install sentencepiece==0.2.3
    tools/tests/gguf/pieces.py
"""

import json
import tempfile
from pathlib import Path

import sentencepiece as sp

HERE = Path(__file__).parent
TEXTS = [
    "Hello, world!", "a", "  two  spaces   and three\n\n\tlines\r\n", "it's he'll WE'VE I'D don't'",
    "1234567890 3.14159 1,000,000", "emoji 🙂👩‍👩‍👧‍👦🇩🇪 and text", "Größe naïve Ångström e\u0301", "中文字符 日本語テキスト 한국어 العربية",
    "control \u0001\u007f\u200b characters", "code: for(i=0;i<n;++i){a[i]+=b->c;} // ==== ____", "trailing space ",
    "wherefore art thou Romeo? KING RICHARD: the the the thee thy", "▁ itself", "\u00a0no-break\u3000wide",
]

with tempfile.TemporaryDirectory() as folder:
    prefix = f"{folder}/m"
    sp.SentencePieceTrainer.train(
        input=HERE / "../../../demo/text/test.txt", model_prefix=prefix, vocab_size=1000, model_type="bpe",
        byte_fallback=True, split_digits=True, normalization_rule_name="identity", remove_extra_whitespaces=False,
        allow_whitespace_only_pieces=True, character_coverage=0.9999, minloglevel=2, user_defined_symbols=["<user>"],
    )
    model = sp.SentencePieceProcessor(model_file=f"{prefix}.model")

ids = range(model.vocab_size())
kind = lambda i: 2 if model.is_unknown(i) else 3 if model.is_control(i) else 6 if model.is_byte(i) else 4 if i == 3 else 1
told = dict(
    version=sp.__version__, pieces=[model.id_to_piece(i) for i in ids], scores=[model.get_score(i) for i in ids],
    kinds=[kind(i) for i in ids], texts=[dict(text=text, ids=model.encode(text)) for text in TEXTS],
)
(HERE / "pieces.json").write_text(json.dumps(told) + "\n")
