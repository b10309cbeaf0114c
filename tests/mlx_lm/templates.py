"""Prints snippets of chat templates with what transformers makes of them: what `templates.rs` compares with.

    .mlx-lm/bin/python tests/mlx_lm/templates.py
"""

import datetime
import json

import jinja2
import jinja2.defaults
from transformers.utils import chat_template_utils


class Fixed(datetime.datetime):
    @classmethod
    def now(cls, tz=None):
        return cls(2026, 1, 1)


VARIABLES = {
    "text": "  The quick-brown fox, 42 times:\tover the LAZY dog!\nAnd äöü é.  ",
    "word": "aXbXc",
    "name": "get_weather",
    "number": "-42",
    "empty": "",
    "none": None,
    "list": [3, 1, 2, 3],
    "words": ["b", "A", "c", "a"],
    "map": {"b": 1, "A": [1, {"x": "<&'\""}], "c": None},
    "rows": [{"k": "x", "n": 2}, {"k": "y", "n": 1}, {"k": "x", "n": 0}],
    "float": 2.5,
    "html": "<b class=\"x\">bold & 'quoted'</b>",
}

METHODS = [
    "text.strip()", "text.lstrip()", "text.rstrip()", "text.strip(' .T')", "word.strip('ac')",
    "text.lower()", "text.upper()", "text.title()", "text.swapcase()", "text.casefold()", "text.capitalize()",
    "text.split()", "text.split(' ')", "text.split(None, 2)", "word.split('X', 1)", "word.split('X', maxsplit=1)",
    "text.rsplit()", "text.rsplit(None, 2)", "word.rsplit('X', 1)", "word.rsplit('X')", "text.splitlines()",
    "text.splitlines(true)", "word.partition('X')", "word.rpartition('X')", "word.partition('-')",
    "word.rpartition('-')", "word.replace('X', '--')", "word.replace('X', '--', 1)", "name.removeprefix('get_')",
    "name.removesuffix('_weather')", "name.removeprefix('set_')", "word.find('X')", "word.rfind('X')",
    "word.find('-')", "word.index('X')", "word.rindex('X')", "word.count('X')", "word.startswith('aX')",
    "word.endswith('Xc')", "word.startswith(('b', 'a'))", "word.endswith(('b', 'a'))", "number.zfill(6)",
    "word.zfill(9)", "word.center(12)", "word.center(11, '*')", "word.ljust(8, '.')", "word.rjust(8)",
    "text.expandtabs(4)", "word.isalpha()", "word.isalnum()", "number.isdigit()", "'42'.isdigit()", "'42'.isdecimal()",
    "'42'.isnumeric()", "name.isidentifier()", "'4x'.isidentifier()", "'The Fox'.istitle()", "'the Fox'.istitle()",
    "word.islower()", "word.isupper()", "'  '.isspace()", "text.isascii()", "word.isprintable()", "text.isprintable()",
    "empty.isdecimal()", "', '.join(words)", "'{} and {}'.format(1, 'x')", "'{a} {b}'.format(a=1, b='x')",
    "map.get('b')", "map.get('z')", "map.get('z', 7)", "map.keys()|list", "map.values()|list",
    "map.items()|list", "words.index('c')", "list.count(3)", "'ab' * 3", "text[2:9]", "text[::-1]", "words[1:]",
    "words[-1]", "1 // 2", "7 % 4", "2 ** 5", "1 / 4", "1 if word else 2", "'X' in word", "'q' not in map",
    "word ~ 1 ~ none", "not empty", "(1, 2)", "{'a': 1}", "1.0", "3 == 3.0", "none is none", "true", "[1, 'a', none]",
]

FILTERS = [
    "-3|abs", "text|capitalize", "word|center(12)", "word|center(11)", "none|default('x')", "none|default('x', true)",
    "missing|default('x')", "empty|d('x', true)", "map|dictsort", "map|dictsort(true)", "map|dictsort(false, 'value')|length if false else 1",
    "html|escape", "html|e", "html|forceescape", "1234567|filesizeformat", "1234567|filesizeformat(true)",
    "list|first", "list|last", "'2.5'|float", "'x'|float", "'x'|float(1.5)", "'%s=%d'|format('a', 3)",
    "rows|groupby('k')|length", "text|indent", "text|indent(2, true)", "text|indent(2, blank=true)", "'42'|int", "'x'|int", "'x'|int(7)",
    "'2a'|int(0, 16)", "map|items|list", "words|join", "words|join(', ')", "rows|join('-', attribute='k')",
    "list|length", "word|list", "text|lower", "text|upper", "rows|map(attribute='n')|list", "words|map('upper')|list",
    "list|max", "list|min", "words|max", "rows|max(attribute='n')", "list|pprint", "list|reject('odd')|list",
    "rows|rejectattr('n')|list|length", "list|select('odd')|list", "rows|selectattr('k', 'equalto', 'x')|list|length",
    "rows|selectattr('n')|list|length", "word|replace('X', '-')", "word|replace('X', '-', 1)", "list|reverse|list",
    "word|reverse", "2.567|round", "2.567|round(2)", "2.1|round(0, 'ceil')", "2.9|round(method='floor')",
    "html|safe", "list|slice(2)|list", "[1,2,3,4,5]|batch(2)|list", "[1,2,3]|batch(2, 0)|list", "words|sort",
    "words|sort(case_sensitive=true)", "words|sort(reverse=true)", "rows|sort(attribute='n')|map(attribute='k')|list",
    "float|string", "html|striptags", "list|sum", "rows|sum(attribute='n')", "list|sum(start=10)", "text|title",
    "map|tojson", "map|tojson(indent=2)", "map|tojson(ensure_ascii=true)", "map|tojson(sort_keys=true)",
    "text|tojson", "map|tojson(separators=(',', ':'))", "text|trim", "word|trim('a')", "text|truncate(20)",
    "text|truncate(20, true)", "text|truncate(20, true, '…')", "text|truncate(20, leeway=0)", "words|unique|list", "words|unique(true)|list",
    "'a b&c/ü'|urlencode", "{'a': 'b c'}|urlencode", "text|wordcount", "text|wordwrap(20)", "{'a': 1, 'b': none}|xmlattr",
    "{'a': '<'}|xmlattr(false)",
]

TESTS = [
    "true is boolean", "1 is boolean", "raise_exception is callable", "word is callable", "missing is defined", "word is defined",
    "6 is divisibleby(3)", "3 is eq(3)", "3 == 3", "2 is even", "false is false", "2.5 is float", "2 is float",
    "3 is ge(3)", "3 is gt(2)", "3 is in(list)", "2 is integer", "true is integer", "list is iterable", "1 is iterable", "2 is le(2)",
    "word is lower", "'abc' is lower", "2 is lt(3)", "map is mapping", "list is mapping", "2 is ne(3)", "none is none", "2 is number",
    "'2' is number", "3 is odd", "none is sameas(none)", "list is sequence", "word is sequence", "map is sequence", "word is string",
    "2 is string", "true is true", "missing is undefined", "'ABC' is upper", "'x' is not none", "'upper' is filter", "'odd' is test",
]

BLOCKS = [
    "{% for i in list %}{% if i == 2 %}{% continue %}{% endif %}{{ i }}{% if loop.last %}!{% endif %}{% endfor %}",
    "{% for i in range(9) %}{% if i > 3 %}{% break %}{% endif %}{{ loop.index0 }}{{ loop.first }}{{ loop.length }}{% endfor %}",
    "{% for i in [] %}x{% else %}none{% endfor %}",
    "{% for k, v in map.items() %}{{ k }}={{ v }};{% endfor %}",
    "{% for m in rows recursive %}{{ m.k }}{{ loop.cycle('a', 'b') }}{{ loop.previtem.k if loop.previtem }}{% endfor %}",
    "{% for m in rows if m.k == 'x' %}{{ m.n }}{{ loop.revindex }}{% endfor %}",
    "{% set ns = namespace(n=0, last='') %}{% for i in list %}{% set ns.n = ns.n + i %}{% endfor %}{{ ns.n }}",
    "{% set x %}  block {{ word }} {% endset %}[{{ x }}]",
    "{% set x | upper %}block{% endset %}{{ x }}",
    "{% macro m(a, b='d') %}({{ a }},{{ b }}){% endmacro %}{{ m(1) }}{{ m(1, b=2) }}",
    "{% macro m() %}<{{ caller() }}>{% endmacro %}{% call m() %}inner{% endcall %}",
    "{% filter upper %}abc{% endfilter %}",
    "{% with a = 1, b = 2 %}{{ a + b }}{% endwith %}",
    "a {#- comment -#} b",
    "{%- if word -%}\n  x\n{%- elif none -%} y {%- else -%} z {%- endif -%}\nend\n",
    "  {% if word %}\nline\n  {% endif %}\nend\n",
    "  {%+ if word %}\nline\n  {% endif +%}\nend\n",
    "{% raw %}{{ not this }}{% endraw %}",
    "{% generation %}said {{ word }}{% endgeneration %}",
    "a\n{% generation %}\nsaid\n{% endgeneration %}\nb",
    "{{ strftime_now('%d %b %Y') }}|{{ strftime_now('%Y-%m-%d %H:%M:%S, %A %B %j %y') }}",
    "{% if date_string is not defined %}{% if strftime_now is defined %}{{ strftime_now('%d %b %Y') }}{% endif %}{% endif %}",
    "{% set c = cycler('a', 'b') %}{{ c.next() }}{{ c.next() }}{{ c.next() }}",
    "{% set j = joiner(', ') %}{{ j() }}a{{ j() }}b",
    "{{ dict(a=1, b=2)|tojson }}{{ namespace(a=1).a }}",
    "{{ [1] + [2] }}{{ 'a' + 'b' }}{{ {'a': {'b': 'c'}}.a.b }}{{ rows[0]['k'] }}",
    "{{ missing }}|{{ none }}|{{ map.zzz }}|{{ true }}|{{ 1.50 }}",
    "{% if '</think>' in html or word.split('X')[-1] == 'c' %}yes{% endif %}",
    "{{ raise_exception('stop') }}",
    "{{ text.nothing() }}",
]


def main():
    chat_template_utils.datetime = Fixed
    written = [f"{{{{ {expression} }}}}" for expression in METHODS + FILTERS + TESTS] + BLOCKS
    found = []
    for source in written:
        try:
            text = chat_template_utils._compile_jinja_template(source).render(**VARIABLES)
        except Exception:
            text = None
        found.append({"source": source, "text": text})
    # Filters that no snippet has. `random` is another prompt each time.
    filters = set(jinja2.defaults.DEFAULT_FILTERS) - {"random", "count", "urlize", "attr"}
    tested = {name for name in filters if not any(f"|{name}" in one or f" {name} " in one for one in written)}
    print(json.dumps({"variables": VARIABLES, "found": found, "untested": sorted(tested)}))


main()
