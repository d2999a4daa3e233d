"""Arithmetic as people write it, evaluated exactly where that is possible. Never `eval`.

    evaluate("15% of 80")            -> Fraction(12)
    evaluate("0.1 + 0.2")            -> Fraction(3, 10)
    evaluate("square root of two")   -> 1.4142135623730951

Numbers are fractions until a function such as `sin` makes them floats. A percentage after + or - is of what stands
before it, as on a pocket calculator: 200 - 10% is 180. Angles are radians unless followed by ° or "degrees". Sizes are
bounded: text, nesting, and the digits of any intermediate result, so 9**9**9 is refused at once.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from fractions import Fraction
from typing import NamedTuple

Number = Fraction | float

MAX_TEXT = 500
MAX_DEPTH = 40
MAX_BITS = 4096
"""Of a numerator or denominator: about 1,200 digits."""


class NotArithmetic(ValueError):
    """The text cannot be calculated; the message says why, for a person."""


class Token(NamedTuple):
    kind: str
    """``number``, ``name``, ``op`` or ``end``."""
    text: str


_SPOKEN: tuple[tuple[str, str], ...] = (
    (r"^add (.+?) (?:and|to) (.+)$", r"(\1) + (\2)"),
    (r"^subtract (.+?) from (.+)$", r"(\2) - (\1)"),
    (r"^multiply (.+?) (?:by|and|with) (.+)$", r"(\1) * (\2)"),
    (r"^divide (.+?) by (.+)$", r"(\1) / (\2)"),
    (r"\bto the power(?: of)?\b|\braised to(?: the power(?: of)?)?\b", " ^ "),
    (r"\bmultiplied by\b|\btimes\b", " * "),
    (r"\bdivided by\b", " / "),
    (r"\bplus\b|\badded to\b", " + "),
    (r"\bminus\b", " - "),
    (r"\bmodulo\b|\bmod\b", " mod "),
    (r"\bsquared\b", " ^ 2 "),
    (r"\bcubed\b", " ^ 3 "),
    (r"\bsquare root\b", " sqrt "),
    (r"\bcube root\b", " cbrt "),
    (r"\bnatural log(?:arithm)?\b", " ln "),
    (r"\blogarithm\b", " log "),
    (r"\baverage\b", " mean "),
    (r"\b(?:tip|tax|discount|interest|vat) on\b", " of "),
    (r"\bper ?cent\b", "%"),
    (r"\b(?:dollars?|euros?|pounds?|bucks)\b", " "),
    (r"\bdegrees?\b", "°"),
    (r"\bhalf of\b", " 0.5 * "),
    (r"\b(?:a )?third of\b", " (1/3) * "),
    (r"\b(?:a )?quarter of\b", " 0.25 * "),
    (r"\b(?:double|twice)\b", " 2 * "),
)
PHRASES = tuple((re.compile(pattern), becomes) for pattern, becomes in _SPOKEN)
ANY_PHRASE = re.compile("|".join(pattern for pattern, _ in _SPOKEN))
"""Most expressions hold none of them."""
HYPHEN = re.compile(r"(?<=[a-z])-(?=[a-z])")  # twenty-five
LEAD = re.compile(
    r"^(?:please |can you |could you |hey |so )*"
    r"(?:what(?:'s| is| are| does)?|how much (?:is|are)|calculate|compute|work out|evaluate|solve|find|tell me)?"
    r"(?: the (?:value|result) of)?(?: the)?\b\s*"
)
TAIL = re.compile(r"[\s,?]+(?:please|for me|equal to|equals?|make)$", re.I)
SIGNS = str.maketrans({"×": "*", "÷": "/", "−": "-", "–": "-", "—": "-", "·": "*", "²": "^2", "³": "^3", "√": "sqrt "})
FACTORIAL_END = re.compile(r"[\d)]\s*!+$")
GROUPED = re.compile(r"\d{1,3}(?:,\d{3})+(?![\d,])(?:\.\d+)?")
TOKEN = re.compile(
    r"\s*(?:(\d+\.?\d*(?:e[+-]?\d{1,4})?|\.\d+(?:e[+-]?\d{1,4})?)(?![\w.])|(\d+\.?\d*)|([a-z]+)|(\*\*|//|[-+*/^%(),!°]))"
)

UNITS = {
    word: value
    for value, word in enumerate(
        "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen "
        "seventeen eighteen nineteen".split()
    )
}
TENS = {word: 10 * (i + 2) for i, word in enumerate("twenty thirty forty fifty sixty seventy eighty ninety".split())}
SCALES = {"hundred": 100, "thousand": 1000, "million": 10**6, "billion": 10**9, "trillion": 10**12}
CONSTANTS = {"pi": math.pi, "π": math.pi, "e": math.e, "tau": math.tau}


def tidy(text: str) -> str:
    """The expression without the words around it: ``"What is 3 squared?"`` becomes ``"3 squared"``."""
    plain = " ".join(text.strip().split())
    start = LEAD.match(plain.lower())
    kept = TAIL.sub("", (plain[start.end() :] if start else plain).strip().rstrip("?.=,;: "))
    return kept if FACTORIAL_END.search(kept) else kept.rstrip("! ")


def evaluate(text: str) -> Number:
    """The value of an expression.

    Raises:
        NotArithmetic: it is not one, has no value, or is too large.
    """
    if len(text) > MAX_TEXT:
        raise NotArithmetic(f"The expression is longer than {MAX_TEXT} characters.")
    try:
        return _Parser(tokens(tidy(text))).all()
    except ZeroDivisionError:
        raise NotArithmetic("Division by zero has no value.") from None
    except OverflowError:
        raise NotArithmetic("The result is too large.") from None


def tokens(text: str) -> list[Token]:
    """Words and signs, in order, ending with an ``end`` token."""
    text = text.lower().translate(SIGNS).replace("π", " pi ").replace("$", "").replace("€", "").replace("£", "")
    if ANY_PHRASE.search(text):
        for pattern, becomes in PHRASES:
            text = pattern.sub(becomes, text)
    found: list[Token] = []
    position, calls = 0, 0
    text = HYPHEN.sub(" ", text)
    while position < len(text.rstrip()):
        # 1,234 is one number, except between the parentheses of a function: max(1,234) has two.
        position += len(text[position:]) - len(text[position:].lstrip())
        grouped = None if calls else GROUPED.match(text, position)
        if grouped:
            found.append(Token("number", grouped[0].replace(",", "")))
            position = grouped.end()
            continue
        match = TOKEN.match(text, position)
        if not match:
            raise NotArithmetic(f"{text[position:].strip()[:20]!r} is not something that can be calculated.")
        position = match.end()
        number, digits, name, op = match.groups()
        if number or digits:
            found.append(Token("number", number or digits))
        elif name:
            found.append(Token("name", name))
        else:
            if op == "(":
                calls += 1 if calls or (found and found[-1].text in FUNCTIONS) else 0
            elif op == ")":
                calls = max(0, calls - 1)
            found.append(Token("op", {"**": "^"}.get(op, op)))
    return [*_spelled(found), Token("end", "")]


def _spelled(found: list[Token]) -> list[Token]:
    """Number words to numbers, and ``3 x 4`` to ``3 * 4``."""
    done: list[Token] = []
    i = 0
    while i < len(found):
        word = found[i].text
        if word in UNITS or word in TENS:
            value, i = _words(found, i)
            done.append(Token("number", str(value)))
            continue
        if word in SCALES and done and done[-1].kind == "number":
            done[-1] = Token("number", str(_number(done[-1].text) * SCALES[word]))
        elif word == "x":
            done.append(Token("op", "*"))
        elif word in ("a", "an", "the"):
            pass
        else:
            done.append(found[i])
        i += 1
    return done


def _words(found: list[Token], i: int) -> tuple[int, int]:
    total = current = 0
    while i < len(found):
        word = found[i].text
        if word in UNITS:
            current += UNITS[word]
        elif word in TENS:
            current += TENS[word]
        elif word == "hundred":
            current *= 100
        elif word in SCALES:
            total, current = total + current * SCALES[word], 0
        elif not (word == "and" and found[i - 1].text in SCALES and _is_number_word(found, i + 1)):
            break
        i += 1
    return total + current, i


def _is_number_word(found: list[Token], i: int) -> bool:
    return i < len(found) and (found[i].text in UNITS or found[i].text in TENS)


def _number(text: str) -> Fraction:
    _, _, exponent = text.partition("e")
    if abs(int(exponent or 0)) > MAX_BITS // 4:
        raise NotArithmetic("The number is too large.")
    return Fraction(text)


class _Parser:
    """Recursive descent: sum > product > sign > power > postfix > atom."""

    def __init__(self, found: list[Token]) -> None:
        self.tokens = found
        self.i = 0
        self.depth = 0

    def all(self) -> Number:
        if self.peek().kind == "end":
            raise NotArithmetic("There is nothing to calculate.")
        value = self.sum()
        if self.peek().kind != "end":
            raise NotArithmetic(f"{self.peek().text!r} was not expected there.")
        return value

    def peek(self) -> Token:
        return self.tokens[self.i]

    def take(self, *texts: str) -> str:
        """The next token's text if it is one of `texts`, moving past it; else ``""``."""
        token = self.peek()
        if token.kind != "end" and token.text in texts:
            self.i += 1
            return token.text
        return ""

    def sum(self) -> Number:
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise NotArithmetic("The parentheses are nested too deeply.")
        value = self.product()
        while op := self.take("+", "-"):
            start = self.i
            right = self.product()
            if self.tokens[self.i - 1].text == "%" and self.i - start == 2:  # 200 - 10%
                right = _times(value, right)
            value = _checked(value + right if op == "+" else value - right)
        self.depth -= 1
        return value

    def product(self) -> Number:
        value = self.signed()
        while True:
            op = self.take("*", "/", "//", "mod", "of", "over") or ("%" if self._modulo() else "")
            if op in ("*", "of"):
                value = _times(value, self.signed())
            elif op in ("/", "over"):
                value = _divided(value, self.signed())
            elif op:
                right = self.signed()
                value = _checked(Fraction(value // right) if op == "//" else value % right)
            elif self.peek().text == "(" or self.peek().text in FUNCTIONS or self.peek().text in CONSTANTS:
                value = _times(value, self.power())  # 2(3 + 4), 2pi
            else:
                return value

    def _modulo(self) -> bool:
        """A % with something to divide by after it is a remainder; any other was read as a percentage."""
        return bool(self.take("%"))

    def signed(self) -> Number:
        sign = 1
        for _ in range(MAX_TEXT):
            op = self.take("-", "+")
            if not op:
                break
            sign = -sign if op == "-" else sign
        value = self.power()
        return -value if sign < 0 else value

    def power(self) -> Number:
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise NotArithmetic("The powers are nested too deeply.")
        base = self.postfix()
        if self.take("^"):
            base = raised(base, self.signed())
        self.depth -= 1
        return base

    def postfix(self) -> Number:
        value = self.atom()
        while True:
            if self.take("!"):
                value = factorial(value)
            elif self.take("°"):
                value = float(value) * math.pi / 180
            elif self.peek().text == "%" and not self._starts_value(self.tokens[self.i + 1]):
                self.i += 1
                value = _checked(value / 100)
            else:
                return value

    @staticmethod
    def _starts_value(token: Token) -> bool:
        if token.kind == "name":
            return token.text in FUNCTIONS or token.text in CONSTANTS
        return token.kind == "number" or token.text == "("

    def atom(self) -> Number:
        token = self.peek()
        if token.kind == "end":
            raise NotArithmetic("Something is missing at the end.")
        self.i += 1
        if token.kind == "number":
            return _checked(_number(token.text))
        if token.text == "(":
            value = self.sum()
            self.close()
            return value
        if token.text in FUNCTIONS:
            return self.function(token.text)
        if token.text in CONSTANTS:
            return CONSTANTS[token.text]
        raise NotArithmetic(f"{token.text!r} is not something that can be calculated.")

    def function(self, name: str) -> Number:
        """``max(1, 2)``, ``sqrt 16``, ``sqrt of 16``, ``sum of 3 and 4``."""
        spoken = bool(self.take("of"))
        if self.take("("):
            arguments = self.listed(",")
            self.close()
        elif spoken and name in MANY:
            arguments = self.listed(",", "and")
        else:
            arguments = [self.signed() if self.peek().text in ("-", "+") else self.power()]
        least, most = (1, 100) if name in MANY else (1, 2) if name in ("log", "round") else (1, 1)
        if not least <= len(arguments) <= most:
            raise NotArithmetic(f"{name} was given {len(arguments)} numbers.")
        try:
            return _checked(FUNCTIONS[name](*arguments))
        except (ValueError, TypeError) as error:
            if isinstance(error, NotArithmetic):
                raise
            raise NotArithmetic(f"{name} has no value there.") from None

    def listed(self, *separators: str) -> list[Number]:
        values = [self.sum()]
        while self.take(*separators):
            self.take("and")
            values.append(self.sum())
        return values

    def close(self) -> None:
        if not self.take(")"):
            raise NotArithmetic("A closing parenthesis is missing.")


def _checked(value: Number) -> Number:
    if isinstance(value, Fraction):
        if max(value.numerator.bit_length(), value.denominator.bit_length()) > MAX_BITS:
            raise NotArithmetic("The result is too large.")
    elif isinstance(value, int):
        return _checked(Fraction(value))
    elif not math.isfinite(value):
        raise NotArithmetic("The result is too large.")
    return value


def _times(left: Number, right: Number) -> Number:
    return _checked(left * right)


def _divided(left: Number, right: Number) -> Number:
    return _checked(left / right)


def raised(base: Number, exponent: Number) -> Number:
    """`base` to a power; exact for whole exponents of fractions. The size is estimated before anything is computed."""
    if isinstance(base, Fraction) and isinstance(exponent, Fraction) and exponent.denominator == 1:
        bits = max(base.numerator.bit_length(), base.denominator.bit_length())
        if abs(base) not in (0, 1) and bits * abs(exponent.numerator) > MAX_BITS + bits:
            raise NotArithmetic("The result is too large.")
        if base == 0 and exponent < 0:
            raise ZeroDivisionError
        if abs(base) == 1:
            return base if exponent.numerator % 2 else abs(base)
        return _checked(Fraction(base**exponent.numerator))
    if exponent == Fraction(1, 2):
        return root(base)
    if base < 0:
        raise NotArithmetic("A negative number to a broken power has no real value.")
    return _checked(float(base) ** float(exponent))


def root(value: Number) -> Number:
    """The square root, exact where it is a fraction."""
    if value < 0:
        raise NotArithmetic("A negative number has no real square root.")
    if isinstance(value, Fraction):
        top, bottom = math.isqrt(value.numerator), math.isqrt(value.denominator)
        if top * top == value.numerator and bottom * bottom == value.denominator:
            return Fraction(top, bottom)
    return math.sqrt(value)


def cube_root(value: Number) -> Number:
    near = Fraction(round(math.cbrt(value)))
    return near if near**3 == value else math.cbrt(value)


def factorial(value: Number) -> Number:
    if value < 0 or value != int(value) or value > 500:
        raise NotArithmetic("A factorial needs a whole number from 0 to 500.")
    return _checked(Fraction(math.factorial(int(value))))


def logarithm(value: Number, base: Number = Fraction(10)) -> Number:
    if value <= 0 or base <= 0 or base == 1:
        raise NotArithmetic("That logarithm has no value.")
    found = math.log10(value) if base == 10 else math.log2(value) if base == 2 else math.log(value) / math.log(base)
    near = Fraction(round(found))
    exact = isinstance(value, Fraction) and isinstance(base, Fraction) and abs(near) <= 500
    return near if exact and raised(base, near) == value else found


def _whole(function: Callable[..., int]) -> Callable[..., Number]:
    def run(*values: Number) -> Number:
        if any(value != int(value) for value in values):
            raise NotArithmetic("That needs whole numbers.")
        return Fraction(function(*(int(value) for value in values)))

    return run


def _rounded(value: Number, places: Number = Fraction(0)) -> Number:
    """Half away from zero, as people round, not to even."""
    scale = Fraction(10) ** max(-30, min(30, int(places)))
    scaled = abs(Fraction(value)) * scale
    return Fraction(math.floor(scaled + Fraction(1, 2))) / scale * (1 if value >= 0 else -1)


def _mean(*values: Number) -> Number:
    return _divided(_total(*values), Fraction(len(values)))


def _total(*values: Number) -> Number:
    total: Number = Fraction(0)
    for value in values:
        total = _checked(total + value)
    return total


def _product(*values: Number) -> Number:
    total: Number = Fraction(1)
    for value in values:
        total = _times(total, value)
    return total


FUNCTIONS: dict[str, Callable[..., Number]] = {
    "sqrt": root,
    "cbrt": cube_root,
    "abs": abs,
    "round": _rounded,
    "floor": lambda value: Fraction(math.floor(value)),
    "ceil": lambda value: Fraction(math.ceil(value)),
    "sin": math.sin,
    "cos": math.cos,
    "tan": math.tan,
    "asin": math.asin,
    "acos": math.acos,
    "atan": math.atan,
    "exp": math.exp,
    "ln": lambda value: Fraction(0) if value == 1 else math.log(value),
    "log": logarithm,
    "factorial": factorial,
    "min": min,
    "max": max,
    "sum": _total,
    "product": _product,
    "mean": _mean,
    "gcd": _whole(math.gcd),
    "lcm": _whole(math.lcm),
}
MANY = frozenset({"min", "max", "sum", "product", "mean", "gcd", "lcm"})


def written(value: Number) -> tuple[str, bool]:
    """A number for a person, and whether it is exact: ``("0.3", True)``, ``("0.333333333333", False)``."""
    if isinstance(value, Fraction):
        if value.denominator == 1:
            return _grouped(str(value.numerator)), True
        digits = _decimal_places(value.denominator)
        if digits is not None and digits <= 30:
            whole, rest = divmod(abs(value.numerator) * 10**digits // value.denominator, 10**digits)
            return ("-" if value < 0 else "") + f"{_grouped(str(whole))}.{rest:0{digits}d}", True
    try:
        near = float(value)
    except OverflowError:
        return f"about 10^{len(str(abs(math.floor(value)))) - 1}", False
    text = f"{near:.12g}"
    # Sines and roots carry rounding noise of about 1e-16: sin(pi) is shown as 0.
    return ("0" if abs(near) < 1e-15 and isinstance(value, float) else text), False


def _grouped(digits: str) -> str:
    return f"{int(digits):,}" if len(digits) > 4 else digits


def _decimal_places(denominator: int) -> int | None:
    """How many decimals a fraction with this denominator has; None when they never end."""
    twos = fives = 0
    while denominator % 2 == 0:
        denominator, twos = denominator // 2, twos + 1
    while denominator % 5 == 0:
        denominator, fives = denominator // 5, fives + 1
    return max(twos, fives) if denominator == 1 else None
