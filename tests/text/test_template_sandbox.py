"""Template bombs end with TemplateError, having done and created little; the sandbox gives nothing away.

No test looks at a clock: a bomb that gets through would hang, or die of the memory limit of limited_memory.
"""

from __future__ import annotations

import resource
from concurrent.futures import ThreadPoolExecutor

import pytest

from albireo.errors import TemplateError
from albireo.text import chat_template
from albireo.text.chat_template import ChatTemplate
from albireo.text.conversation import plain_conversation

# ns.x: a list of lists of lists, a million million items wide and forty objects large.
_LAUGHS = "{% set ns = namespace(x=('ab',), y=('ab',)) %}{% for i in range(40) %}{% set ns.x = (ns.x, ns.x) %}"
_LAUGHS += "{% set ns.y = (ns.y, ns.y) %}{% endfor %}"
_HUGE = "(('1' * 4000000)|int(base=2))"

BOMBS = {
    "repeat": "{{ 'a' * 10**9 }}",
    "repeat a list": "{{ [0] * 10**9 }}",
    "repeat markup": "{{ ('<'|safe) * 10**9 }}",
    "print often": "{% set x = 'a' * 1000000 %}{% for i in range(100000) %}{{ x }}{% endfor %}",
    "nested loops": "{% for i in range(100000) %}{% for j in range(100000) %}{% endfor %}{% endfor %}",
    "idle loops": "{% for i in range(100000) %}{% for j in range(100000) if false %}x{% endfor %}{% endfor %}",
    "doubling +": "{% set ns = namespace(x='ab') %}{% for i in range(200) %}{% set ns.x = ns.x + ns.x %}{% endfor %}",
    "doubling ~": "{% set ns = namespace(x='ab') %}{% for i in range(200) %}{% set ns.x = ns.x ~ ns.x %}{% endfor %}",
    "doubling list": "{% set ns = namespace(x=[1]) %}{% for i in range(200) %}{% set ns.x = ns.x + ns.x %}{% endfor %}",
    "laughs print": _LAUGHS + "{{ ns.x }}",
    "laughs join": _LAUGHS + "{{ 'a' ~ ns.x }}",
    "laughs json": _LAUGHS + "{{ ns.x|tojson }}",
    "laughs ==": _LAUGHS + "{{ ns.x == ns.y }}",
    "laughs <": _LAUGHS + "{{ ns.x < ns.y }}",
    "laughs in": _LAUGHS + "{{ ns.x in {'a': 1} }}",
    "laughs is in": _LAUGHS + "{{ ns.x is in([ns.y]) }}",
    "laughs select": _LAUGHS + "{{ [ns.x]|select('in', [ns.y])|list|length }}",
    "laughs sort": _LAUGHS + "{{ [ns.x, ns.y]|sort|length }}",
    "laughs count": _LAUGHS + "{{ [ns.y].count(ns.x) }}",
    "laughs key": _LAUGHS + "{{ {ns.x: 1} }}",
    "laughs look-up": _LAUGHS + "{{ messages[0][ns.x] }}",
    "laughs get": _LAUGHS + "{{ messages[0].get(ns.x) }}",
    "laughs changed": _LAUGHS + "{% for i in [1, 2] %}{{ loop.changed(ns.x) }}{% endfor %}",
    "laughs raise": _LAUGHS + "{{ raise_exception(ns.x) }}",
    "laughs %": _LAUGHS + "{{ '%s' % (ns.x,) }}",
    "laughs format": _LAUGHS + "{{ '{}'.format(ns.x) }}",
    "laughs attribute": _LAUGHS + "{{ {}|attr(ns.x) }}",
    "fibonacci": "{% macro f(n) %}{% if n > 1 %}{{ f(n-1) }}{{ f(n-2) }}{% endif %}{% endmacro %}{{ f(60) }}",
    "recursion": "{% macro f(n) %}{{ f(n+1) }}{% endmacro %}{{ f(0) }}",
    "recursive loop": "{% for x in [1, 2] recursive %}{{ loop([1, 2]) }}{% endfor %}",
    "calls in calls": "{% macro m() %}{{ caller() }}{{ caller() }}{% endmacro %}"
    + "{% call m() %}" * 30
    + "x"
    + "{% endcall %}" * 30,
    "set block": "{% set x %}{% for i in range(100000) %}" + "y" * 10_000 + "{% endfor %}{% endset %}",
    "macro text": "{% macro m() %}{% for i in range(100000) %}" + "y" * 10_000 + "{% endfor %}{% endmacro %}{{ m() }}",
    "filter block": "{% filter upper %}{% for i in range(100000) %}" + "y" * 10_000 + "{% endfor %}{% endfilter %}",
    "center filter": "{{ 'a'|center(1000000000) }}",
    "center method": "{{ 'a'.center(1000000000) }}",
    "zfill": "{{ '1'.zfill(10**9) }}",
    "% width": "{{ '%1000000000d' % 1 }}",
    "% star": "{{ '%*d' % (10**9, 1) }}",
    "% odd key": "{{ '%(a(b))1000000000d' % {'a(b)': 1} }}",
    "format width": "{{ '{:1000000000}'.format(1) }}",
    "format nested": "{{ '{:{}}'.format('a', 10**9) }}",
    "format escaped": "{{ '{{{:{}}}}'.format('x', 10**9) }}",
    "format precision": "{{ '{:.999999999f}'.format(1.5) }}",
    "format many": "{{ ('{0}' * 100000).format('a' * 100000) }}",
    "format filter": "{{ '%1000000000d'|format(1) }}",
    "format_map": "{{ '{a:1000000000}'.format_map({'a': 1}) }}",
    "power": "{{ 10 ** (10 ** 9) }}",
    "squares": "{% set ns = namespace(x=3) %}{% for i in range(100) %}{% set ns.x = ns.x * ns.x %}{% endfor %}",
    "huge number": "{{ " + _HUGE + " }}",
    "huge modulo": "{% set n = " + _HUGE + " %}{{ n % (n // 3) }}",
    "replace": "{{ ('a' * 1000000).replace('a', 'b' * 1000000) }}",
    "replace nothing": "{{ ('a' * 1000000).replace('', 'b' * 1000000) }}",
    "replace filter": "{{ ('a' * 1000000)|replace(old='a', new='b' * 1000000) }}",
    "replace in a list": "{{ (['a'] * 100000)|replace('a', 'b' * 1000000) }}",
    "join method": "{{ ('a' * 1000000).join(range(100000)|map('string')) }}",
    "join filter": "{{ range(100000)|join(d='a' * 1000000) }}",
    "join attribute": "{{ ([{'x': 'a' * 1000000}] * 10000)|join(',', attribute='x') }}",
    "indent": "{{ ('\\n' * 1000000)|indent(9999, blank=true) }}",
    "tojson indent": "{{ [1, 2]|tojson(indent=1000000000) }}",
    "tojson separators": "{{ range(1000)|list|tojson(separators=('a' * 1000000, 'b')) }}",
    "laughs replace": _LAUGHS + "{{ 'a'.replace(ns.x, 'b') }}",
    "laughs views": _LAUGHS + "{{ {'a': ns.x}.values() }}",
    "laughs items": _LAUGHS + "{{ {'a': ns.x}.items() ~ '' }}",
    "search a range": "{% for i in range(100000) %}{% if 0.5 in range(100000) %}{% endif %}{% endfor %}",
    "long path": "{% set ns = namespace() %}{% set ns.a = ns %}{{ ([ns] * 10000)|map(attribute='a.' * 100000)|list }}",
    "long path to sort": "{% set ns = namespace() %}{% set ns.a = ns %}{{ ([ns] * 9)|groupby('a.' * 100000) }}",
    "title": "{% set s = 'a b ' * 1000000 %}{% for i in range(100) %}{% set x = s|title|length %}{% endfor %}",
    "word count": "{% set s = 'a b ' * 1000000 %}{% for i in range(1000) %}{{ s|wordcount }}{% endfor %}",
    "batch": "{{ [1]|batch(10**9, 'x')|list|length }}",
    "slice": "{{ [1]|slice(10**9)|list|length }}",
    "round": "{{ 1.5|round(10**9, 'ceil') }}",
    "range": "{{ range(10**12)|list }}",
    "search a list": "{% set l = range(100000)|list %}{% for i in range(100000) %}{{ -1 in l }}{% endfor %}",
    "search a text": "{% set l = 'a' * 3000000 %}{% for i in range(100000) %}{{ 'aaaab' in l }}{% endfor %}",
    "slices": "{% set l = range(100000)|list %}{% for i in range(100000) %}{% set y = l[::-1] %}{% endfor %}",
    "keep": "{% set ns = namespace(l=[]) %}{% for i in range(100000) %}{% set ns.l = ns.l + ['a' * 1000000] %}"
    "{% endfor %}",
    "split": "{% set ns = namespace(l=[]) %}{% for i in range(1000) %}"
    "{% set ns.l = ns.l + [('a ' * 1000000).split()] %}{% endfor %}",
    "lazy": "{% for i in range(1000) %}{{ range(100000)|reject('odd')|reject('even')|first }}{% endfor %}",
    "lazy length": "{% for i in range(1000) %}{% for c in range(100000)|map('string') %}{{ loop.length }}{% break %}"
    "{% endfor %}{% endfor %}",
    "escape": "{{ ('<' * 3000000)|escape|escape|escape|escape|length }}",
    "sum lists": "{{ ([range(100)|list] * 10000)|sum(start=[])|length }}",
    "nested print": "{% set ns = namespace(x=[]) %}{% for i in range(90000) %}{% set ns.x = [ns.x] %}{% endfor %}"
    "{{ ns.x }}",
    "date": "{{ strftime_now('%999999d' * 10000) }}",
    "when compiled": "{% autoescape 'a'|center(1000000000) %}x{% endautoescape %}",
}

SECRETS = {
    "class": "{{ ''.__class__.__mro__ }}",
    "globals": "{{ raise_exception.__globals__['json'] }}",
    "attr": "{{ (''|attr('__class__')).mro() }}",
    "self": "{{ strftime_now.__self__.year }}",
    "format": "{{ '{0.__class__.__mro__}'.format('') }}",
    "format_map": "{{ '{a.__class__.__mro__}'.format_map({'a': ''}) }}",
    "namespace": "{{ namespace(__init__=1) }}",
    "include": "{% include 'x' %}",
    "import": "{% import 'x' as y %}",
    "extends": "{% extends 'x' %}",
    "lipsum": "{{ lipsum() }}",
    "cycler": "{{ cycler.__init__.__globals__.os }}",
    "append": "{{ messages.append(1) }}",
    "update": "{{ messages[0].update({'role': 'x'}) }}",
    "encode": "{{ 'a'.encode() }}",
    "to_bytes": "{{ (1).to_bytes(10) }}",
    "expandtabs": "{{ 'a'.expandtabs(10) }}",
    "mapping": "{{ messages[0].items().mapping.x }}",
    "striptags": "{{ 'a'|striptags }}",
    "wordwrap": "{{ 'a'|wordwrap(1) }}",
    "translate": "{{ 'a'.translate({97: 'b'}) }}",
}


def render(source):
    return ChatTemplate(source).render(plain_conversation([{"role": "user", "content": "hi"}], reads_parts=False))


@pytest.fixture
def limited_memory():
    """Two GiB above what is mapped now: a bomb that goes off ends as MemoryError in a message that no test expects."""
    with open("/proc/self/statm") as statm:
        mapped = int(statm.read().split()[0]) * resource.getpagesize()
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (mapped + 2 * 2**30, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_AS, before)


#: What spends all that it may of work, whose limit ten times lower is reached at the same place. Two have the whole.
_ALL_WORK = ("laughs", "lazy", "fibonacci", "nested loops", "idle loops", "search a", "calls in calls")
_WITH_ALL = ("laughs print", "search a list")


@pytest.mark.usefixtures("limited_memory")
@pytest.mark.parametrize("name", BOMBS)
def test_bombs_do_not_go_off(name, monkeypatch):
    if name.startswith(_ALL_WORK) and name not in _WITH_ALL:
        monkeypatch.setattr(chat_template, "WORK", chat_template.WORK // 10)
    with pytest.raises(TemplateError) as caught:
        render(BOMBS[name])
    assert "exceeds its limits" in str(caught.value) or "Range too big" in str(caught.value)
    assert "MemoryError" not in str(caught.value)


@pytest.mark.usefixtures("limited_memory")
def test_bombs_do_not_go_off_in_other_threads():
    names = ["nested loops", "repeat", "laughs ==", "recursion"] * 2

    def problem(name):
        with pytest.raises(TemplateError) as caught:
            render(BOMBS[name])
        return str(caught.value)

    with ThreadPoolExecutor(4) as pool:
        problems = list(pool.map(problem, names))
    assert all("exceeds its limits" in text for text in problems)


@pytest.mark.parametrize("name", SECRETS)
def test_nothing_is_given_away(name):
    with pytest.raises(TemplateError):
        render(SECRETS[name])


def test_ordinary_work_of_every_kind_is_done():
    source = (
        "{{ ('a' * 1000)|length }} {{ '%s is %05.2f' % ('x', 1.5) }} {{ '{:>5}'.format('ab') }} {{ 2 ** 10 }} "
        "{{ [3, 1, 2]|sort|join(', ') }} {{ 'a-b'.split('-')|last }} {{ 'x'|center(5) }} {{ 7 // 2 }} {{ 7 % 4 }} "
        "{{ {'a': 1}.items()|list }} {{ [1, 2, 3][1:] }} {{ 'b' in 'abc' }} {{ messages|selectattr('role', 'eq', "
        "'user')|list|length }} {{ ' t '|trim }} {{ 'a,b'.replace(',', ';') }} {{ dict(a=1).get('b', 2) }} "
        "{{ ', '.join(['a', 'b']) }} {{ [1, 2]|map('string')|join }} {{ 'abc'|upper }} {{ -(3) }}"
    )
    assert render(source) == (
        "1000 x is 01.50    ab 1024 1, 2, 3 b   x   3 3 [('a', 1)] [2, 3] True 1 t a;b 2 a, b 12 ABC -3"
    )


def test_a_template_keeps_nothing_between_renderings():
    template = ChatTemplate("{% set ns = namespace(n=0) %}{% set ns.n = ns.n + 1 %}{{ ns.n }}{{ messages[0].content }}")
    chats = [plain_conversation([{"role": "user", "content": str(i)}], reads_parts=False) for i in range(50)]
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(template.render, chats)) == [f"1{i}" for i in range(50)]


def test_limits_grow_with_the_conversation():
    template = ChatTemplate("{% for m in messages %}{% for n in messages %}{% endfor %}{{ m.content }}{% endfor %}")
    messages = [{"role": "user", "content": "x" * 100}] * 900
    assert len(template.render(plain_conversation(messages, reads_parts=False))) == 90_000


def test_namespaces_that_hold_each_other_are_not_printed():
    source = "{% set ns = namespace() %}{% set ns.a = ns %}{{ ns }}"
    chain = "{% set a = namespace() %}" + "{% set a = namespace(b=a, c=a) %}" * 60 + "{{ a }}"
    assert render(source) == render(chain) == "<Namespace>"
