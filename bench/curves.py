"""Loss curves: their exponential means and a picture of them."""


def exponential_mean(values, keep=0.9):
    mean, out = 0.0, []
    for step, value in enumerate(values, start=1):
        mean = keep * mean + (1 - keep) * value
        out.append(mean / (1 - keep**step))
    return out


def plot(curves, styles, title):
    """A small SVG: a line for each curve, of (color, width, opacity)."""
    width, height, left, bottom, top = 640, 320, 48, 32, 28
    values = [value for curve in curves.values() for value in curve]
    low, high, steps = min(values), max(values), max(len(curve) for curve in curves.values())
    low, high = low - 0.05 * (high - low), high + 0.05 * (high - low)

    def x(step):
        return left + step / max(1, steps - 1) * (width - left - 8)

    def y(value):
        return top + (high - value) / (high - low) * (height - top - bottom)

    out = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif" '
           'font-size="11">', f'<rect width="{width}" height="{height}" fill="white"/>',
           f'<text x="{left}" y="16">{title}</text>']
    for i in range(6):
        value = low + (high - low) * i / 5
        out.append(f'<path d="M{left} {y(value):.1f}H{width - 8}" stroke="#ddd"/>'
                   f'<text x="{left - 6}" y="{y(value) + 4:.1f}" text-anchor="end">{value:.2f}</text>')
        step = (steps - 1) * i // 5
        out.append(f'<text x="{x(step):.1f}" y="{height - 12}" text-anchor="middle">{step + 1}</text>')
    for row, ((name, curve), (color, stroke, opacity)) in enumerate(zip(curves.items(), styles)):
        points = " ".join(f"{x(step):.1f},{y(value):.2f}" for step, value in enumerate(curve))
        out.append(f'<polyline points="{points}" fill="none" stroke="{color}" stroke-width="{stroke}" '
                   f'stroke-opacity="{opacity}"/>')
        out.append(f'<text x="{width - 16}" y="{top + 16 + 16 * row}" text-anchor="end" fill="{color}">{name}</text>')
    return "\n".join([*out, "</svg>", ""])
