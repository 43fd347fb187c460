"""The nouns of a caption, by lists of the words that captions of photographs are made of and are not nouns.

A tagger would need a model of its own. Captioners write short phrases in a small vocabulary, of which articles,
prepositions, verb forms and adjectives are few and nouns are many: so what is none of those is taken for a noun. Words
that are both, such as ``stop`` or ``orange``, count as what they mostly are in captions.
"""

from __future__ import annotations

import re

_FUNCTION_WORDS = """
    a an the this that these those his her its their my your our it he she they them him who which what there here i
    you we us me itself himself herself themselves one two three four five six seven eight nine ten several some
    many few both each every all any no another other others more most much such same lot lots couple various
    multiple single double and or but nor as if so than then while when where because of in on at by to from for
    with without into onto over under above below between behind beside besides near next across along around
    through throughout against among amongst inside outside within toward towards upon off out up down away apart
    about after before during until since like per via not only also just very too quite really almost still already
    again together alone ahead back left right top bottom front middle side sides half full part
"""
"""Articles, pronouns, numbers, conjunctions, prepositions, words of place."""
_VERBS = """
    is are was were be been being am has have had do does did can could will would may might must should shall let
    sit sits sat stand stands stood lie lies lay lays laid look looks show shows shown hold holds held wear wears
    wore worn ride rides rode ridden walk walks run runs ran play plays make makes made take takes took taken get
    gets got go goes went gone come comes came eat eats ate eaten drive drives drove driven fly flies flew flown
    hang hangs hung lead leads led see sees seen say says said read reads write writes written drink drinks drank
    keep keeps kept give gives gave given put puts set sets cut cuts catch catches caught throw throws threw thrown
    swing swings hit hits jump jumps pose poses appear appears seem seems contain contains feature features include
    includes cover covers grow grows grown swim swims swam sleep sleeps slept graze grazes face faces fill fills
    surround surrounds lean leans rest rests reach reaches pull pulls push pushes carry carries feed feeds fed bend
    bends bent blow blows sell sells sold draw draws drawn broken torn built hidden knit overlook overlooks depict
    depicts
"""
"""Verb forms that do not end in -ing or -ed."""
_ADJECTIVES = """
    white black red green blue yellow brown gray grey pink purple orange golden silver dark light bright pale blond
    blonde big small little large huge tiny tall short long high low wide narrow thick thin deep old young new
    modern ancient vintage antique empty full busy crowded clear cloudy sunny snowy rainy foggy misty wet dry hot
    cold warm cool fresh dirty clean open shut different similar close closed nearby far distant front rear upper
    lower main urban rural residential commercial public private local wooden metal metallic plastic concrete brick
    stainless leather ceramic woolen furry fluffy fuzzy hairy grassy rocky sandy muddy dusty leafy hilly mountainous
    wild domestic female male adult elderly pregnant nude naked bare barefoot beautiful nice pretty cute adorable
    lovely funny happy sad angry sleepy hungry lonely lively friendly ready asleep awake alive dead ripe raw whole
    sliced round square rectangular circular flat steep sharp smooth rough soft hard heavy curly straight striped
    plaid floral colorful colourful various assorted electric electronic digital professional olympic american
    british chinese japanese french italian german indian african asian european good bad best great real fake giant
    mini miniature unidentified partial entire opposite parallel upside downhill uphill outdoors indoors outdoor
    indoor downtown overhead underwater now today away maybe probably perhaps
"""
"""Adjectives and adverbs that do not end in -ly, -ful, -ous or -ed."""
_NOUNS = """
    awning bearing bedding blessing building ceiling clothing clearing covering crossing dressing drawing dwelling
    earring engraving evening everything fencing filling flooring frosting icing king lightning lighting lining
    morning mooring something anything nothing opening outing painting paving piping pudding railing ring roofing
    seating setting siding sibling spring sting string stocking stuffing topping viking wedding wing wiring writing
    duckling herring bed shed sled seed weed reed flatbed bunkbed family butterfly dragonfly fly lily belly jelly
    ally bully trolley assembly monopoly handful mouthful armful plateful octopus hundred breed speed steed
    watershed biped moped centipede
"""
"""Nouns that end like verb forms, adjectives or adverbs."""
_OTHERS = frozenset(f"{_FUNCTION_WORDS} {_VERBS} {_ADJECTIVES}".split())
_KNOWN = frozenset(f"{_NOUNS}".split())
_OTHER_ENDINGS = re.compile(r".{3,}(?:ing|ed|ly|ful|ous|n't)$")
_WORD = re.compile(r"[^\W\d_]+(?:['-][^\W\d_]+)*")


def nouns(text: str) -> tuple[str, ...]:
    """The nouns of a text in their order, in lower case, each once.

    >>> nouns("a man riding a wave on top of a white surfboard")
    ('man', 'wave', 'surfboard')
    """
    words = [word.lower().removesuffix("'s") for word in _WORD.findall(text)]
    return tuple(dict.fromkeys(word for word in words if _is_noun(word)))


def _is_noun(word: str) -> bool:
    if len(word) < 2 or word in _OTHERS:
        return False
    return word in _KNOWN or not _OTHER_ENDINGS.fullmatch(word)
