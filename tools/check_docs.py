#!/usr/bin/env python3
"""Compares the documents with the code that they speak of.

usage: tools/check_docs.py           says what does not agree, and fails
       tools/check_docs.py --write   writes the generated tables anew

Generated: what stands between `<!-- generated: NAME -->` and `<!-- end -->` in docs/. Also checked: links,
names of files in the tree, the README of each folder of src/, the commands in docs/protocol.md, the words in the manual
pages of cachefilesd, the synopsis of larder(8).
"""

import pathlib
import re
import sys

sys.dont_write_bytecode = True
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))

import check_layers

ROOT = pathlib.Path(__file__).resolve().parents[1]
MOST_README_LINES = 25
_BLOCK = re.compile(r"(<!-- generated: ([a-z-]+) -->\n)(.*?)(<!-- end -->\n)", re.DOTALL)


def source(path):
    return (ROOT / "src" / path).read_text()


def table(head, rows):
    lines = ["| " + " | ".join(row) + " |" for row in [head, ["---"] * len(head), *rows]]
    return "\n".join(lines) + "\n"


def enumerators(path, name):
    """(enumerator, its comment) of an enum class, in order."""
    body = re.search(r"enum class " + name + r"\b[^{]*\{(.*?)\n\};", source(path), re.DOTALL).group(1)
    return [(found.group(1), (found.group(2) or "").strip())
            for found in re.finditer(r"^\s*(k\w+)[^,\n]*,?[ \t]*(?://[ \t]*(.*))?$", body, re.MULTILINE)]


def printed_names(path, name):
    """enumerator: text, from a name_of() made of `case NAME::kX: return "x";`."""
    return dict(re.findall(r"case " + name + r'::(k\w+):\s*return "([^"]+)";', source(path)))


def sentence(text):
    return re.sub(r"^'.' ", "", text)


def locks():
    ranks = re.findall(r'LOCK_RANK\((k\w+), "([^"]+)", "([^"]+)"\)', source("base/lock_ranks.def"))
    return table(["rank", "in code", "guards"], [[name, f"`{rank}`", what] for rank, name, what in ranks])


def cookie_states():
    texts = {state: (letter, name) for state, letter, name in re.findall(
        r"\{CookieState::(k\w+), '(.)', \"([^\"]+)\"\}", source("fscache/cookie_state.h"))}
    rows = []
    for state, comment in enumerators("fscache/cookie_state.h", "CookieState"):
        letter, name = texts[state]
        body = re.search(r"case CookieState::" + state + r":\s*return (.*?);", source("fscache/cookie_state.cc"),
                         re.DOTALL).group(1)
        moves = [texts[to][1] for to in re.findall(r"CookieState::(k\w+)", body)]
        rows.append([f"**{name}**", f"`{letter}`", sentence(comment), ", ".join(moves) or "none"])
    return table(["state", "letter", "means", "may move to"], rows)


def named_enum(header, implementation, name, head="state"):
    names = printed_names(implementation, name)
    return table([head, "means"], [[f"**{names[value]}**", sentence(comment) or "as it says"]
                                      for value, comment in enumerators(header, name)])


def open_modes():
    return table(["mode", "value in the record", "means"],
                 [[f"`{value}`", re.search(value + r" = (\d+)", source("fuse/node_open.h")).group(1),
                   comment or "not open"]
                  for value, comment in enumerators("fuse/node_open.h", "OpenMode")])


def cache_commands():
    when = {"kBeforeBind": "before bind", "kAfterBind": "after bind", "kAnyTime": "at any time"}
    rows = [(f"`{(name + ' ' + syntax).strip()}`".replace("\\\\n", "\\n"), help_text, when[time])
            for name, syntax, help_text, time in
            re.findall(r'^CACHE_COMMAND\(\w+, "(\w+)", "([^"]*)", "([^"]*)", (\w+)\)$',
                       source("control/cache_commands.def"), re.MULTILINE)]
    return table(("command", "does", "when"), rows)


GENERATED = {
    "cache-commands": cache_commands,
    "layers": check_layers.printed_table,
    "locks": locks,
    "cookie-states": cookie_states,
    "cache-states": lambda: named_enum("fscache/cache.h", "fscache/cache.cc", "CacheState"),
    "mount-states": lambda: named_enum("engine/mount.h", "engine/mount.cc", "MountState"),
    "open-modes": open_modes,
    "open-why": lambda: named_enum("fuse/node_open.h", "fuse/node_open.cc", "OpenWhy", "why"),
}


def documents():
    return [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")), *sorted((ROOT / "src").rglob("README.md"))]


def check_generated(write):
    found, seen = [], set()
    for path in documents():
        text = path.read_text()

        def renew(match):
            seen.add(match.group(2))
            if match.group(2) not in GENERATED:
                found.append(f"{path.relative_to(ROOT)}: nothing generates {match.group(2)}")
                return match.group(0)
            return match.group(1) + GENERATED[match.group(2)]() + match.group(4)

        renewed = _BLOCK.sub(renew, text)
        if renewed != text and write:
            path.write_text(renewed)
        elif renewed != text:
            found.append(f"{path.relative_to(ROOT)}: a generated table is not what the code says: "
                         "tools/check_docs.py --write")
    return found + [f"docs: the table {name} is shown nowhere" for name in GENERATED if name not in seen]


def check_links():
    found = []
    for path in documents():
        text = re.sub(r"```.*?```|^(?: {4}).*$", "", path.read_text(), flags=re.DOTALL | re.MULTILINE)
        for target in re.findall(r"\]\(([^)\s]+)\)", text):
            name = target.partition("#")[0]
            if name and not re.match(r"[a-z]+:", name) and not (path.parent / name).exists():
                found.append(f"{path.relative_to(ROOT)}: the link {target} leads nowhere")
        # Paths in backquotes, as seen from the top or from src/.
        for name in re.findall(r"`((?:src|docs|tests|tools|programs|base|os|fscache|netfs|cachefiles|culling|fuse"
                               r"|adapters|handover|keeper|control|cli|engine|cachefilesd|testing)/[\w./-]*\w)(?:\(\))?`", text):
            if "NN" not in name and not any((base / name).exists() for base in (ROOT, ROOT / "src", path.parent)):
                found.append(f"{path.relative_to(ROOT)}: there is no {name}")
    return found


def check_readmes():
    found = []
    for layer in check_layers.LAYERS:
        if layer == "programs":
            continue
        path = ROOT / "src" / layer / "README.md"
        if not path.exists():
            found.append(f"src/{layer} has no README.md: purpose, main types, what it must not know")
        elif len(path.read_text().splitlines()) > MOST_README_LINES:
            found.append(f"src/{layer}/README.md has more than {MOST_README_LINES} lines")
    return found


def check_commands():
    """The table of docs/protocol.md has each command with its arguments and who may give it."""
    shown = {}
    for line in (ROOT / "docs/protocol.md").read_text().splitlines():
        cells = [cell.strip() for cell in line.strip("|").split(" | ")]
        if len(cells) == 3 and cells[2].rstrip(" |") in ("everyone", "root", "root, larder"):
            shown[cells[0].strip("| `")] = cells[2].rstrip(" |")
    told = {f"{name} {syntax}".strip(): {"kEveryone": "everyone", "kRoot": "root", "kService": "root, larder"}[who]
            for name, syntax, who in re.findall(r'^COMMAND\("(\w+)", "([^"]*)",.*, (k\w+)\)$',
                                                source("control/commands.def"), re.MULTILINE)}
    found = [f"docs/protocol.md: does not show the command `{command}` for {who}"
             for command, who in told.items() if shown.get(command) != who]
    return found + [f"docs/protocol.md: there is no command `{command}`" for command in shown if command not in told]


def man_page_has(page, name):
    """Whether one of the heads of the page's paragraphs has the word `name`."""
    plain = re.escape(name.replace("-", r"\-"))
    return any(re.search(r'(?:[\s,"(]|\\fB)' + plain + r"(?![\w-])", head)
               for head in re.findall(r"^\.TP\n\.(?:B|BI|BR)( .*)$", page, re.MULTILINE))


def check_man_pages():
    """cachefilesd's pages have each command of its configuration, and each of its options."""
    commands = re.findall(r'^CONFIG_COMMAND\(\w+, "([\w-]+)"', source("cachefilesd/config_commands.def"), re.MULTILINE)
    commands += [name for name in re.findall(r'^CACHE_COMMAND\(\w+, "(\w+)"', source("control/cache_commands.def"),
                                             re.MULTILINE) if re.fullmatch(r"[bf](run|cull|stop)", name)]
    options = [name for names in re.findall(r'app\.add_(?:flag|option)\(\s*"([^"]+)"', source("cachefilesd/options.cc"))
               for name in names.split(",")]
    found = []
    for file, names in (("cachefilesd.conf.5", commands), ("cachefilesd.8", options)):
        page = (ROOT / "docs/man" / file).read_text()
        found += [f"docs/man/{file}: says nothing of {name}" for name in names if not man_page_has(page, name)]
        if not names:
            found.append(f"docs/man/{file}: the code has no names for it")
    return found


def check_synopsis():
    """larder(8) shows each command, and each of its options, that `larder --help` shows."""
    code = source("cli/run.cc")
    options = [names.split(",") for names, rest in re.findall(
        r'(?:->|command\s*\.)\s*add_(?:flag|option)\(\s*"(-[^"]+)"([^;]*);', code) if '->group("")' not in rest]
    commands = [[name] for name in re.findall(r'add_subcommand\(\s*"(\w+)"', code)]
    page = (ROOT / "docs/man/larder.8").read_text()
    shown = page[page.index(".SH SYNOPSIS"):page.index(".SH DESCRIPTION")].replace("\\-", "-")
    found = [f"docs/man/larder.8: the synopsis lacks {names[0]}" for names in commands + options
             if not any(re.search(rf"(?<![\w-]){re.escape(name)}(?![\w-])", re.sub(r"\\f.", " ", shown))
                        for name in names)]
    return found if commands and options else [*found, "docs/man/larder.8: the code has no names for it"]


def check_decisions():
    found, numbers = [], {}
    for path in sorted((ROOT / "docs/decisions").iterdir()):
        match = re.fullmatch(r"(\d{4})-[a-z0-9-]+\.md", path.name)
        if match is None:
            found.append(f"docs/decisions/{path.name}: is not called NNNN-title.md")
        elif match.group(1) in numbers:
            found.append(f"docs/decisions/{path.name}: {numbers[match.group(1)]} has this number")
        else:
            numbers[match.group(1)] = path.name
    return found


def check_test_labels():
    """docs/testing.md names every label that a test has."""
    text = (ROOT / "docs/testing.md").read_text()
    labels = set()
    for path in [*ROOT.glob("tests/**/CMakeLists.txt"), *ROOT.glob("cmake/*.cmake"), *ROOT.glob("src/**/CMakeLists.txt")]:
        labels.update(re.findall(r"LABELS \"?([a-z]+)", path.read_text()))
    return [f"docs/testing.md: says nothing of the label `{label}`" for label in sorted(labels) if f"`{label}`" not in text]


def main(words):
    if words not in ([], ["--write"]):
        print(__doc__, file=sys.stderr)
        return 2
    found = check_generated(bool(words))
    for check in (check_links, check_readmes, check_commands, check_man_pages, check_synopsis, check_decisions,
                  check_test_labels):
        found += check()
    for complaint in found:
        print(complaint)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
