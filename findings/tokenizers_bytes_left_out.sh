#!/usr/bin/env bash
# tokenizers 0.23.3
#
# Guess:  a BPE tokenizer behind ByteLevel can write every text, as GPT-2's can: its alphabet is the 256 bytes.
# Seen:   the trainer's alphabet is the bytes that its texts have; a byte beyond them is left out by `encode`,
#         without an error and without an unknown token, so that a text comes back shorter. And vocab_size is
#         passed over where the alphabet alone is larger.
# So:     give the trainer initial_alphabet=ByteLevel.alphabet(); of a saved tokenizer, look whether all
#         letters of that alphabet are in its vocabulary before a loss a token or a byte is compared.
#
# Output seen:
#   tokenizers 0.23.3
#   trained on 'the cat the hat', 'the dog' comes back as 'the '
#   with initial_alphabet, 'the dog' comes back as 'the dog'
#   vocab_size=10 with 300 different characters gives 300 tokens
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
"${PYTHON:-python3}" -m venv venv
venv/bin/pip install --quiet tokenizers==0.23.3
cat > finding.py <<'EOF'
import tokenizers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers


def train(texts, spelled=True, **options):
    tokenizer = Tokenizer(models.BPE())
    if spelled:
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
    tokenizer.train_from_iterator(texts, trainers.BpeTrainer(show_progress=False, **options))
    return tokenizer


def write_and_read(tokenizer):
    return tokenizer.decode(tokenizer.encode("the dog").ids)


print("tokenizers", tokenizers.__version__)
texts = ["the cat the hat"]
short = write_and_read(train(texts, vocab_size=400))
alphabet = pre_tokenizers.ByteLevel.alphabet()
whole = write_and_read(train(texts, vocab_size=400, initial_alphabet=alphabet))
print(f"trained on {texts[0]!r}, 'the dog' comes back as {short!r}")
print(f"with initial_alphabet, 'the dog' comes back as {whole!r}")
symbols = "".join(chr(0x4E00 + k) for k in range(300))
size = train([symbols], spelled=False, vocab_size=10).get_vocab_size()
print(f"vocab_size=10 with 300 different characters gives {size} tokens")
assert whole == "the dog"
assert short == "the ", "bytes that training lacks are no longer left out"
assert size == 300, "vocab_size bounds the alphabet now"
EOF
venv/bin/python -W ignore finding.py
