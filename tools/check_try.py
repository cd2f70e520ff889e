#!/usr/bin/env python3
"""Does every TRY stand alone?

TRY (src/base/result.h) returns out of the middle of an expression. What the compiler has built
of that expression by then, the members of a braced list or the other arguments of a call, is
never destroyed: g++ only cleans it up for exceptions. A shared_ptr among them is a leak, found
once as a cache directory that stayed locked. So TRY may follow `=` or `return`, be a statement or
a condition, or the only argument of a call.

usage: tools/check_try.py [--self-test]
"""
import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = ("src", "programs", "tests", "tools")
BLOCK_WORDS = ("else", "do", "try", "const", "noexcept", "override", "mutable")
BRACKETS = {")": "(", "}": "{", "]": "["}


def blank(match):
    return re.sub(r"[^\n]", " ", match.group())


def without_text(source):
    """The source with its comments, strings and preprocessor lines blanked, at equal places."""
    pattern = r'//[^\n]*|/\*.*?\*/|"(?:\\.|[^"\\\n])*"|(?m:^[ \t]*#(?:\\\n|[^\n])*)'
    return re.sub(pattern, blank, source, flags=re.S)


def opens_block(before):
    """Whether a brace after this text begins statements, not a list of members."""
    before = before.rstrip()
    if not before or before[-1] in ");{}:":
        return True
    if re.search(r"->\s*[\w:<>,*& ]+$", before):  # a function's result
        return True
    return re.search(r"[\w]+$", before) is not None and before.split()[-1] in BLOCK_WORDS


def has_comma(text, start):
    """Whether another argument or member follows, in the brackets that enclose `start`."""
    depth = 0
    for char in text[start:]:
        depth += (char in "([{") - (char in ")]}")
        if depth < 0:
            return False
        if char == "," and depth == 0:
            return True
    return False


def fault(text, at):
    """What is wrong with the TRY that begins at `at`, or None."""
    depth = 0
    others = has_comma(text, at)
    for place in range(at - 1, -1, -1):
        char = text[place]
        if char in BRACKETS:
            depth += 1
            if char == "}" and depth == 1 and text[place + 1:at].strip() == "":
                return None  # the statement before it was a block
        elif char in "([{":
            if depth > 0:
                depth -= 1
                continue
            if char == "[":
                return "in a capture"
            if char == "{" and opens_block(text[:place]):
                return None
            return "beside others" if others else None
        elif char == "," and depth == 0:
            others = True
        elif char == ";" and depth == 0:
            return None
    return None


def faults(source):
    text = without_text(source)
    for match in re.finditer(r"\bTRY\(", text):
        what = fault(text, match.start())
        if what:
            yield text.count("\n", 0, match.start()) + 1, what


def self_test():
    good = ("void f() { for (auto x : TRY(a())) {} }", "void f() { T t{TRY(a())}; }", "void f() { g(*TRY(a(1, 2))); }",
            "void f() { TRY(a()); }", "void f() { x = TRY(a(b, c)).d; }", "void f() { g(TRY(a(1, 2)).b()); }",
            "auto l = [x]() -> Result<> { TRY(a()); };", "void f() { if (TRY(a()) > 1) { TRY(b()); } }",
            "void f() { return TRY(a()); }", "void f() { g(\"TRY(\", 1); /* h(1, TRY(a())) */ }",
            "Result<> f() const { if (x) { y(); }\n TRY(a()); }", "void f() { T t(TRY(a({1, 2}))); }")
    bad = ("void f() { g(x, TRY(a())); }", "void f() { g(TRY(a()), x); }", "void f() { T t{x, TRY(a())}; }",
           "void f() { T t{TRY(a()), x}; }", "void f() { g(std::make_shared<T>(T{x, TRY(a())})); }",
           "auto l = [x = TRY(a())] {};")
    wrong = [text for text in good if list(faults(text))] + [text for text in bad if not list(faults(text))]
    for text in wrong:
        print(f"check_try: wrong about: {text}", file=sys.stderr)
    return 1 if wrong else 0


def main():
    if sys.argv[1:] == ["--self-test"]:
        return self_test()
    bad = 0
    for path in sorted(p for folder in FOLDERS for p in (ROOT / folder).rglob("*") if p.suffix in (".cc", ".h")):
        for line, what in faults(path.read_text()):
            print(f"{path.relative_to(ROOT)}:{line}: a TRY {what}: give its value a name first", file=sys.stderr)
            bad += 1
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
