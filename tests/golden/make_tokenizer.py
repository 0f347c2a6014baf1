# Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0
"""Trains small tokenizers of the layouts that checkpoints use, and writes what the tokenizers library makes of 5,000
strings with each.

  tokenizers/NAME/tokenizer.json   the tokenizers
  tokenizer_strings.zst            the strings: little-endian uint32 length and UTF-8 bytes, one after the other
  tokenizer_expected.bin           for each layout in order of names: a uint16 a string, then a uint64 over all strings

The digest of a string covers its ids (special tokens parsed and added; neither), and the text of both decoded, with and
without special tokens, and of a dozen ids drawn at random, which give broken UTF-8. stories260K's own tokenizer, when
STORIES names its folder, is digested too, into tokenizer_stories.bin.

Needs tokenizers, xxhash, zstandard (or the zstd program). Run in this folder: python make_tokenizer.py [STORIES]
"""
import json
import os
import struct
import subprocess
import sys

import xxhash
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

HERE = os.path.dirname(os.path.abspath(__file__))
LLAMA3 = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
          r"|\s+(?!\S)|\s+")
QWEN2 = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
         r"|\s+(?!\S)|\s+")
O200K = (r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
         r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
         r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+")

SENTENCES = [
    "The quick brown fox jumps over the lazy dog, didn't it? They'll say it's what we've done; I'd agree.",
    "Once upon a time there was a little girl named Lily. She loved to play outside in the sunshine.",
    "What is 17 + 25? The answer is 42. 1234567 and 3.14159, 50% of 1,000.",
    "Съешь же ещё этих мягких французских булок, да выпей чаю.",
    "Ξεσκεπάζω την ψυχοφθόρα βδελυγμία.",
    "الحب سماء لا تمطر غير الأحلام. ١٢٣٤٥",
    "דג סקרן שט בים מאוכזב ולפתע מצא חברה.",
    "ऋषियों को सताने वाले दुष्ट राक्षसों के राजा रावण का सर्वनाश",
    "เป็นมนุษย์สุดประเสริฐเลิศคุณค่า กว่าบรรดาฝูงสัตว์เดรัจฉาน",
    "いろはにほへと ちりぬるを わかよたれそ つねならむ カタカナ ﾊﾝｶｸ",
    "天地玄黄，宇宙洪荒。日月盈昃，辰宿列张。 一二三四五",
    "다람쥐 헌 쳇바퀴에 타고파 키스의 고유조건은",
    "Zażółć gęślą jaźń. Příliš žluťoučký kůň. Größe, ſtraße, ﬁn, naïve café résumé.",
    "Cafe\u0301 re\u0301sume\u0301 A\u030a \u212b \u1e9b\u0323 \u0344 q\u0307\u0323 \u1100\u1161\u11a8 \u0958 \u2126",
    "def f(x):\n    if x > 0:\n\t\treturn x ** 2  # square\n    return {'a': [1, 2, None]}\n\n\n",
    "<div class=\"a\">&nbsp;</div> https://example.org/a?b=c&d=%20#e  user@example.org",
    "👩‍👩‍👧‍👦 🏳️‍🌈 🇩🇪🇫🇷 👍🏽 ❤️ 😀😃😄 ☃ ♠♥ ½ ² Ⅷ ① ٣ 𝟘𝔸𝒷",
    "'S 'T 'RE 'VE 'M 'LL 'D 'ſ don'T WE'RE you'LL ''' ’s",
    "▁ Ġ Ċ <0x0A> <0xE4> ▁▁the ĠtheÄ¡",
]
SPECIAL_TEXTS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<s>", "</s>", "<unk>", "<pad>", "<tool_call>", "<mask>",
                 "<|begin_of_text|>", "<|eot_id|>", "[INST]", "[/INST]", "foo", "foobar", "bar", "<x>", "<xx>", "été",
                 "e\u0301te\u0301", "  ", "\n\n", "<|im_", "im_end|>", "<wide>"]


def strings():
    """5,000 strings, the same on every machine."""
    state = [12345]  # a generator that does not change with Python's version

    def below(n):
        state[0] = (state[0] * 6364136223846793005 + 1442695040888963407) % 2**64
        return (state[0] >> 33) % n

    def pick(items):
        return items[below(len(items))]

    def code_point():
        kind = below(10)
        low, high = [(0, 0x80), (0x80, 0x300), (0x300, 0x370), (0x370, 0x600), (0x600, 0x2000), (0x2000, 0x3100),
                     (0x3100, 0xd800), (0xe000, 0x10000), (0x10000, 0x20000), (0x20000, 0x110000)][kind]
        return chr(low + below(high - low))

    spaces = " \t\n\r\v\f\x85\xa0\u1680\u180e\u2000\u2003\u2009\u200a\u200b\u2028\u2029\u202f\u205f\u3000\ufeff"
    words = " ".join(SENTENCES).split(" ")
    out = ["", " ", "  ", "\n", "\0", "a", "\u180e", "a\u180eb \u180e c", " " * 1000, "\n" * 300, "\t" * 77 + "x",
           "x" * 2000, "ab" * 700, "1" * 100, "é" * 300, "🙂" * 100, "a\u0301" * 200, "=" * 400, "\ufffd", "<0x0A>",
           "Hello <|im_end|> world", " <s> hello</s>  there <unk>", "\U000323af\U00031350\u0897\ua7dc\U0001e5f5 new"]
    out += SENTENCES + SPECIAL_TEXTS
    while len(out) < 5000:
        kind = below(9)
        n = 1 + below(12)
        if kind == 0:
            s = " ".join(pick(words) for _ in range(n))
        elif kind == 1:
            s = "".join(pick(words) + pick(spaces) * below(4) for _ in range(n))
        elif kind == 2:
            s = "".join(code_point() for _ in range(n))
        elif kind == 3:
            s = "".join(pick(SPECIAL_TEXTS) + pick(["", "", " ", "  ", "\n", "a", "_", "é", "\u0301"]) +
                        pick(["", pick(words)]) for _ in range(1 + n // 3))
        elif kind == 4:
            s = "".join(chr(below(128)) for _ in range(2 * n))
        elif kind == 5:
            a = pick(SENTENCES)
            start = below(len(a))
            s = a[start:start + 3 * n]
        elif kind == 6:
            s = "".join(pick([pick(words), str(below(10**(1 + below(9)))), pick(spaces) * (1 + below(30)), code_point(),
                              pick(list(".,;:!?'\"()[]{}<>|/\\-_+*&^%$#@~`=▁Ġ"))]) for _ in range(n))
        elif kind == 7:
            s = pick(words).upper() + pick(spaces) + pick(words)[::-1] + "'" + pick(["s", "T", "re", "LL", "x", "ſ"])
        else:
            s = "".join(pick(["e", "a", "n", "\u1100", "\u1161", "\u0938", "か"]) +
                        "".join(pick("\u0300\u0301\u0323\u0327\u0344\u11a8\u093c\u3099\u0338\u05b0") for _ in range(below(3)))
                        for _ in range(n))
        out.append(s)
    return out


def corpus():
    return SENTENCES * 20 + [" ".join(SENTENCES[:3])] * 40


def byte_level(pre, normalizer=None, size=420, special=("<|endoftext|>",)):
    t = Tokenizer(models.BPE())
    if normalizer:
        t.normalizer = normalizer
    t.pre_tokenizer = pre
    t.decoder = decoders.ByteLevel()
    t.train_from_iterator(corpus(), trainers.BpeTrainer(
        vocab_size=size, special_tokens=list(special), show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet()))
    return t


def split(pattern, behavior="isolated", invert=False):
    return pre_tokenizers.Split(Regex(pattern), behavior, invert)


def raw_bytes():
    return pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)


def sentencepiece(byte_fallback, fuse_unk=True, split_words=True, alphabet=80):
    """Vocabulary and merges over ▁-words, behind <unk> <s> </s> and, for byte fallback, the bytes."""
    t = Tokenizer(models.BPE(unk_token="<unk>"))
    t.pre_tokenizer = pre_tokenizers.Metaspace(split=split_words)
    t.train_from_iterator(corpus(), trainers.BpeTrainer(vocab_size=300, limit_alphabet=alphabet, show_progress=False,
                                                        special_tokens=["<unk>", "<s>", "</s>"]))
    model = json.loads(t.to_str())["model"]
    names = ["<unk>", "<s>", "</s>"] + [f"<0x{i:02X}>" for i in range(256 if byte_fallback else 0)]
    names += [k for k, _ in sorted(model["vocab"].items(), key=lambda kv: kv[1]) if k not in names]
    model.update(vocab={k: i for i, k in enumerate(names)}, byte_fallback=byte_fallback, fuse_unk=fuse_unk)
    special = [dict(id=i, content=c, single_word=False, lstrip=False, rstrip=False, normalized=False, special=True)
               for i, c in enumerate(["<unk>", "<s>", "</s>"])]
    return dict(version="1.0", truncation=None, padding=None, added_tokens=special, normalizer=None,
                pre_tokenizer=None, post_processor=None, decoder=None, model=model)


def start_token(name, id):
    return json.loads(processors.TemplateProcessing(single=f"{name} $A", pair=f"{name} $A {name} $B",
                                                    special_tokens=[(name, id)]).__getstate__())


def part(p):
    return json.loads(p.__getstate__())


def layouts():
    out = {}
    t = byte_level(pre_tokenizers.ByteLevel(add_prefix_space=False))
    t.post_processor = processors.ByteLevel(trim_offsets=True)
    out["gpt2"] = t

    t = byte_level(pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True),
                                            pre_tokenizers.ByteLevel(add_prefix_space=True)]),
                   special=["<|endoftext|>", "<|im_start|>", "<|im_end|>"])
    out["digits_prefix_space"] = t

    t = byte_level(pre_tokenizers.Sequence([split(LLAMA3), raw_bytes()]), special=[])
    t.add_special_tokens(["<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"])
    j = json.loads(t.to_str())
    j["model"]["ignore_merges"] = True
    # A word that is in the vocabulary but that no merges lead to any more.
    word = max((k for k in j["model"]["vocab"] if k.startswith("Ġ")), key=len)
    j["model"]["merges"] = [m for m in j["model"]["merges"] if "".join(m) != word]
    start = t.token_to_id("<|begin_of_text|>")
    j["post_processor"] = {"type": "Sequence", "processors": [part(processors.ByteLevel(trim_offsets=True)),
                                                              start_token("<|begin_of_text|>", start)]}
    out["llama3"] = j

    t = byte_level(pre_tokenizers.Sequence([split(QWEN2), raw_bytes()]), normalizers.NFC(), special=[])
    t.add_special_tokens(["<|endoftext|>", "<|im_start|>", "<|im_end|>"])
    t.add_tokens([AddedToken("<tool_call>", special=False, normalized=False),
                  AddedToken("été", special=False, normalized=True),
                  AddedToken("e\u0301tage", special=False, normalized=True)])
    j = json.loads(t.to_str())
    j["model"]["merges"] = ["#version: 0.2"] + [" ".join(m) for m in j["model"]["merges"]]
    out["qwen2"] = j

    out["o200k"] = byte_level(pre_tokenizers.Sequence([split(O200K), raw_bytes()]))

    j = sentencepiece(True)
    j["normalizer"] = part(normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]))
    j["post_processor"] = start_token("<s>", 1)
    j["decoder"] = part(decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(),
                                           decoders.Strip(" ", 1, 0)]))
    j["added_tokens"] += [dict(id=len(j["model"]["vocab"]) + i, content=c, single_word=False, lstrip=False, rstrip=False,
                               normalized=n, special=s)
                          for i, (c, n, s) in enumerate([("foo", True, False), ("<wide>", True, True)])]
    out["llama2"] = j

    j = sentencepiece(True, split_words=False)
    j["pre_tokenizer"] = part(pre_tokenizers.Metaspace(prepend_scheme="first", split=False))
    j["post_processor"] = start_token("<s>", 1)
    j["decoder"] = part(decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(),
                                           decoders.Strip(" ", 1, 0)]))
    out["metaspace_first"] = j

    j = sentencepiece(False, fuse_unk=False)
    j["pre_tokenizer"] = part(pre_tokenizers.Metaspace())
    j["decoder"] = part(decoders.Metaspace())
    out["metaspace_always"] = j

    j = sentencepiece(True, alphabet=40)
    j["pre_tokenizer"] = part(pre_tokenizers.Metaspace(prepend_scheme="never", split=True))
    j["decoder"] = part(decoders.Metaspace(prepend_scheme="never"))
    # Not all bytes: what they do not cover is unknown.
    some = [k for k in j["model"]["vocab"] if not (k.startswith("<0x") and int(k[3:5], 16) > 0xd0)]
    j["model"]["vocab"] = {k: i for i, k in enumerate(some)}
    out["some_bytes"] = j

    j = sentencepiece(True)
    j["normalizer"] = part(normalizers.Replace(" ", "▁"))
    j["pre_tokenizer"] = part(pre_tokenizers.Split(" ", "merged_with_previous"))
    j["decoder"] = part(decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]))
    out["gemma"] = j

    t = byte_level(pre_tokenizers.ByteLevel(add_prefix_space=False),
                   normalizers.Sequence([normalizers.NFC(), normalizers.Replace(Regex(r"\s{3,}"), "  "),
                                         normalizers.Replace("ﬁ", "fi"), normalizers.Replace(Regex("^X+"), "")]))
    t.add_special_tokens([AddedToken("<mask>", lstrip=True, normalized=False, special=True),
                          AddedToken("<pad>", rstrip=True, normalized=False, special=True),
                          AddedToken("<x>", lstrip=True, rstrip=True, normalized=True, special=True)])
    t.add_tokens([AddedToken("foo", single_word=True, normalized=False), AddedToken("foobar", normalized=False),
                  AddedToken("bar", single_word=True, lstrip=True, normalized=True), AddedToken("<xx>", normalized=True),
                  AddedToken("\n\n", normalized=False), AddedToken("  ", normalized=True),
                  AddedToken("e\u0301te\u0301", normalized=True), AddedToken("<|im_", normalized=False),
                  AddedToken("im_end|>", normalized=False), AddedToken("<|im_end|>", normalized=False, special=True)])
    out["flags"] = t

    t = byte_level(pre_tokenizers.Sequence([
        split(r"\p{N}{1,3}"), split("[一-龥぀-ゟ゠-ヿ]+"), split(r"[.,!?]", "merged_with_previous"),
        split(r"[(<\[]", "merged_with_next"), split(r"[=\-]", "contiguous"), split(r"\u0300|\x{301}", "removed"),
        split(r"[^\s\d]+|\s+", "removed", True), split(r"(?i)the|\p{Lu}*", "isolated"), raw_bytes()]))
    out["splits"] = t
    # Without a decoder tokens are joined by blanks; trailing characters can be stripped as well.
    out["no_decoder"] = json.loads(byte_level(pre_tokenizers.ByteLevel(add_prefix_space=False)).to_str())
    out["no_decoder"]["decoder"] = None
    j = sentencepiece(True)
    j["normalizer"] = part(normalizers.Replace(" ", "▁"))
    j["decoder"] = part(decoders.Sequence([decoders.ByteFallback(), decoders.Fuse(), decoders.Replace("▁", " "),
                                           decoders.Replace("the", "THE")]))
    out["late_replace"] = j
    return out


def digest(t, plain, s):
    plain.encode_special_tokens = True
    a, b = t.encode(s).ids, plain.encode(s, add_special_tokens=False).ids
    size = t.get_vocab_size()
    seed = xxhash.xxh64(s.encode()).intdigest()
    c = [(seed >> (5 * i)) * 2654435761 % 2**32 % (size + 3) for i in range(12)]
    h = xxhash.xxh64()
    for ids in (a, b, c):
        h.update(struct.pack(f"<I{len(ids)}I", len(ids), *ids))
        for skip in (False, True):
            text = t.decode(ids, skip_special_tokens=skip).encode()
            h.update(struct.pack("<I", len(text)) + text)
    return h.intdigest()


def digests(path, texts):
    t, plain = Tokenizer.from_file(path), Tokenizer.from_file(path)
    values = [digest(t, plain, s) for s in texts]
    total = xxhash.xxh64(struct.pack(f"<{len(values)}Q", *values)).intdigest()
    return struct.pack(f"<{len(values)}H", *(v & 0xffff for v in values)) + struct.pack("<Q", total)


def main():
    texts = strings()
    packed = b"".join(struct.pack("<I", len(s.encode())) + s.encode() for s in texts)
    subprocess.run(["zstd", "-19", "-q", "-f", "-o", f"{HERE}/tokenizer_strings.zst"], input=packed, check=True)
    expected = b""
    for name, t in sorted(layouts().items()):
        folder = f"{HERE}/tokenizers/{name}"
        os.makedirs(folder, exist_ok=True)
        with open(f"{folder}/tokenizer.json", "w", encoding="utf-8") as f:
            json.dump(t if isinstance(t, dict) else json.loads(t.to_str()), f, ensure_ascii=False, separators=(",", ":"))
        expected += digests(f"{folder}/tokenizer.json", texts)
    with open(f"{HERE}/tokenizer_expected.bin", "wb") as f:
        f.write(expected)
    if len(sys.argv) > 1:
        with open(f"{HERE}/tokenizer_stories.bin", "wb") as f:
            f.write(digests(f"{sys.argv[1]}/tokenizer.json", texts))


if __name__ == "__main__":
    main()
