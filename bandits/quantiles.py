"""Distribution functions and quantiles of the normal, Student's t and the Beta law, in the dialect of kernels.

They are written here and not taken from a library because plain Python and compiled code must agree in the last bit:
`math.lgamma`, for one, is another function in CPython than in Numba.

Examples
--------
>>> from offramp.bandits.quantiles import beta_quantile, normal_quantile, student_quantile
>>> round(normal_quantile(0.975), 6), round(student_quantile(0.025, 10.0), 6), round(beta_quantile(0.5, 2.0, 3.0), 6)
(1.959964, 2.228139, 0.385728)

"""

import math

from offramp.bandits.kernel import kernel

HALF_LOG_TAU = 0.9189385332046727418  # ln(2 pi) / 2
ROOT_HALF = 0.7071067811865475244
STEPS = 80  # Newton steps at most; four or five are usual
TERMS = 20_000  # of a continued fraction at most; 450 were needed for 10^7 pulls
TINY = 1e-300
EXPANDED = 1_000.0  # degrees of freedom from which the expansion around the normal law is exact to 1e-11


@kernel
def normal_cdf(x: float) -> float:
    """Probability that a standard normal number is at most x."""
    return 0.5 * math.erfc(-x * ROOT_HALF)


@kernel
def normal_quantile(p: float) -> float:
    """Number that a standard normal one stays below with probability p, p in (0, 1).

    Notes
    -----
    Rational approximations of Wichura (1988), algorithm AS 241, exact to about 1e-16.  Small p are exact in relative
    terms; for an upper tail q ask for the quantile of q and change the sign.

    """
    q = p - 0.5
    if math.fabs(q) <= 0.425:
        r = 0.180625 - q * q
        top = 2509.0809287301226727 * r + 33430.575583588128105
        top = ((top * r + 67265.770927008700853) * r + 45921.953931549871457) * r + 13731.693765509461125
        top = ((top * r + 1971.5909503065514427) * r + 133.14166789178437745) * r + 3.387132872796366608
        low = 5226.495278852854561 * r + 28729.085735721942674
        low = ((low * r + 39307.89580009271061) * r + 21213.794301586595867) * r + 5394.1960214247511077
        low = ((low * r + 687.1870074920579083) * r + 42.313330701600911252) * r + 1.0
        return q * top / low
    r = math.sqrt(-math.log(p if q < 0.0 else 1.0 - p))
    if r <= 5.0:
        r -= 1.6
        top = 7.7454501427834140764e-4 * r + 0.0227238449892691845833
        top = ((top * r + 0.24178072517745061177) * r + 1.27045825245236838258) * r + 3.64784832476320460504
        top = ((top * r + 5.7694972214606914055) * r + 4.6303378461565452959) * r + 1.42343711074968357734
        low = 1.05075007164441684324e-9 * r + 5.475938084995344946e-4
        low = ((low * r + 0.0151986665636164571966) * r + 0.14810397642748007459) * r + 0.68976733498510000455
        low = ((low * r + 1.6763848301838038494) * r + 2.05319162663775882187) * r + 1.0
    else:
        r -= 5.0
        top = 2.01033439929228813265e-7 * r + 2.71155556874348757815e-5
        top = ((top * r + 0.0012426609473880784386) * r + 0.026532189526576123093) * r + 0.29656057182850489123
        top = ((top * r + 1.7848265399172913358) * r + 5.4637849111641143699) * r + 6.6579046435011037772
        low = 2.04426310338993978564e-15 * r + 1.4215117583164458887e-7
        low = ((low * r + 1.8463183175100546818e-5) * r + 7.868691311456132591e-4) * r + 0.0148753612908506148525
        low = ((low * r + 0.13692988092273580531) * r + 0.59983220655588793769) * r + 1.0
    return -top / low if q < 0.0 else top / low


@kernel
def stirling(x: float) -> float:
    """What Stirling's formula for the logarithm of the gamma function leaves out, x >= 12."""
    r = 1.0 / (x * x)
    series = r * (1.0 / 1188.0 - r * (691.0 / 360360.0))
    return (1.0 / 12.0 - r * (1.0 / 360.0 - r * (1.0 / 1260.0 - r * (1.0 / 1680.0 - series)))) / x


@kernel
def log_gamma(x: float) -> float:
    """Logarithm of the gamma function, x > 0: Stirling's formula, reached by recurrence from small x."""
    product = 1.0
    while x < 12.0:
        product *= x
        x += 1.0
    return (x - 0.5) * math.log(x) - x + HALF_LOG_TAU + stirling(x) - math.log(product)


@kernel
def log_beta(a: float, b: float) -> float:
    """Logarithm of the Beta function, a, b > 0; the large terms of its three gamma functions cancel on paper."""
    low, high = min(a, b), max(a, b)
    product = 1.0
    while high < 12.0:
        product *= (low + high) / high
        high += 1.0
    both = low + high
    rest = -(high - 0.5) * math.log1p(low / high) - low * math.log(both) + low
    return log_gamma(low) + rest + stirling(high) - stirling(both) + math.log(product)


@kernel
def away_from_zero(x: float) -> float:
    """As it is, unless it is so near to zero that it cannot be divided by."""
    return x if math.fabs(x) > TINY else TINY


@kernel
def beta_fraction(x: float, a: float, b: float) -> float:
    """The continued fraction of the incomplete Beta function, by Lentz's method; for x below (a + 1) / (a + b + 2)."""
    c, d = 1.0, 1.0 / away_from_zero(1.0 - (a + b) * x / (a + 1.0))
    value = d
    for k in range(2, TERMS):  # even and odd coefficients in turn
        m = float(k // 2)
        if k % 2 == 0:
            term = m * (b - m) * x / ((a + 2.0 * m - 1.0) * (a + 2.0 * m))
        else:
            term = -(a + m) * (a + b + m) * x / ((a + 2.0 * m) * (a + 2.0 * m + 1.0))
        d = 1.0 / away_from_zero(1.0 + term * d)
        c = away_from_zero(1.0 + term / c)
        value *= c * d
        if k % 2 == 1 and math.fabs(c * d - 1.0) < 1e-14:
            break
    return value


@kernel
def log_beta_cdf(y: float, a: float, b: float, scale: float) -> float:
    """Logarithm of the Beta distribution function at x = exp(y) < 1; `scale` is `log_beta(a, b)`."""
    x = min(math.exp(y), 1.0 - 1.2e-16)
    front = a * y + b * math.log1p(-x) - scale
    upper = x > (a + 1.0) / (a + b + 2.0)
    first, second = (b, a) if upper else (a, b)
    part = beta_fraction(1.0 - x if upper else x, first, second) / first
    if upper:
        return math.log(max(1.0 - math.exp(front) * part, TINY))
    return front + math.log(part)


@kernel
def beta_cdf(x: float, a: float, b: float) -> float:
    """Probability that a Beta(a, b) number is at most x; a, b > 0, any x."""
    if x <= 0.0:
        return 0.0
    if x >= 1.0:
        return 1.0
    return math.exp(log_beta_cdf(math.log(x), a, b, log_beta(a, b)))


@kernel
def lower_beta_quantile(p: float, a: float, b: float) -> float:
    """Number that a Beta(a, b) one stays below with probability p, p in [0, 1/2]: exact in relative terms.

    Newton's method for ln F as a function of ln x, where it is concave for b >= 1 and convex below: from any start it
    passes the root at most once, then runs towards it from one side.
    """
    if p <= 0.0:
        return 0.0
    target, scale = math.log(p), log_beta(a, b)
    if a >= 1.0:
        z = normal_quantile(p)
        left, right = a - 0.5, max(b - 0.5, 0.2)
        y = -math.log1p(math.exp(min(math.log(right / left) - z * math.sqrt(1.0 / left + 1.0 / right), 700.0)))
    else:
        y = (target + math.log(a) + scale) / a
    y = min(y, -1e-9)
    for _ in range(STEPS):
        log_cdf = log_beta_cdf(y, a, b, scale)
        x = min(math.exp(y), 1.0 - 1.2e-16)
        slope = math.exp(a * y + (b - 1.0) * math.log1p(-x) - scale - log_cdf)
        move = (log_cdf - target) / max(slope, TINY)
        after = y - move
        y = 0.5 * y if after >= 0.0 else after
        if math.fabs(move) < 1e-9:
            break
    return math.exp(y)


@kernel
def beta_quantile(p: float, a: float, b: float) -> float:
    """Number that a Beta(a, b) one stays below with probability p.

    Parameters
    ----------
    p
        In [0, 1].  Above 1/2 one minus the result is exact in relative terms, else the result is.
    a, b
        Shapes, > 0.

    """
    upper = p > 0.5
    x = lower_beta_quantile(1.0 - p if upper else p, b if upper else a, a if upper else b)
    return 1.0 - x if upper else x


@kernel
def student_quantile(tail: float, dof: float) -> float:
    """Number that Student's t exceeds with probability `tail`.

    Parameters
    ----------
    tail
        In (0, 1/2].
    dof
        Degrees of freedom, >= 1, not necessarily whole.

    Notes
    -----
    Through the Beta law of dof / (dof + t^2); from `EXPANDED` on by the Cornish-Fisher expansion around the normal
    quantile (Abramowitz and Stegun 26.7.5), which spares the long continued fraction.

    """
    if dof >= EXPANDED:
        z = -normal_quantile(tail)
        s = z * z
        first = (s + 1.0) / 4.0
        second = ((5.0 * s + 16.0) * s + 3.0) / 96.0
        third = (((3.0 * s + 19.0) * s + 17.0) * s - 15.0) / 384.0
        fourth = ((((79.0 * s + 776.0) * s + 1482.0) * s - 1920.0) * s - 945.0) / 92160.0
        return z * (1.0 + (first + (second + (third + fourth / dof) / dof) / dof) / dof)
    near = tail > 0.25
    v = lower_beta_quantile(
        1.0 - 2.0 * tail if near else 2.0 * tail, 0.5 if near else 0.5 * dof, 0.5 * dof if near else 0.5
    )
    return math.sqrt(dof * v / (1.0 - v)) if near else math.sqrt(dof * (1.0 - v) / v)
