"""A comparison as one self-contained HTML page."""

from base64 import b64encode
from collections.abc import Sequence

from jinja2 import Environment, StrictUndefined

from poolwise.comparison.ranking import Comparison, cells

PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Comparison of {{ rows|length }} runs</title>
<style>
:root { color-scheme: light; }
* { box-sizing: border-box; }
body { max-width: 84rem; margin: 0 auto; padding: 1.5rem; background: #fff; color: #1a1a1a;
  font: 1rem/1.55 system-ui, -apple-system, "Segoe UI", "Helvetica Neue", Arial, "DejaVu Sans", sans-serif; }
h1 { font-size: 1.7rem; line-height: 1.25; }
h2 { font-size: 1.25rem; margin: 2.4rem 0 .6rem; padding-top: .8rem; border-top: 1px solid #d5d5d5; }
p, li, figcaption { max-width: 52rem; overflow-wrap: anywhere; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-size: .9rem; font-variant-numeric: tabular-nums; }
caption { text-align: left; color: #555; padding-bottom: .3rem; }
th, td { padding: .25rem .6rem; border-bottom: 1px solid #e3e3e3; text-align: right; vertical-align: top; }
tbody th { font-weight: 400; overflow-wrap: anywhere; min-width: 10rem; }
th[scope=row], .text { text-align: left; }
tr.suspect td.verdict { color: #8a3400; font-weight: 700; }
figure { margin: 1.4rem 0 2.2rem; }
figure img { display: block; width: 100%; max-width: 1280px; height: auto; }
@media print { body { max-width: none; padding: 0; font-size: 10pt; } figure, tr { break-inside: avoid; } }
</style>
</head>
<body>
<main>
<h1>Which of {{ rows|length }} runs predicts best?</h1>
<ul>
{% for line in words %}
<li>{{ line }}</li>
{% endfor %}
</ul>
<h2>The ranking</h2>
<div class="wide" tabindex="0" role="region" aria-label="Ranking"><table>
<caption>By elpd_loo on {{ "{:,}".format(num_rows) }} rows; diff is to the best trusted run. In full:
tables/comparison.csv</caption>
<thead><tr>
{% for cell in head %}
<th scope="col"{% if loop.index == 2 or loop.revindex <= 2 %} class="text"{% endif %}>{{ cell }}</th>
{% endfor %}
</tr></thead>
<tbody>
{% for row in rows %}
<tr{% if row[-2] != "trusted" %} class="suspect"{% endif %}><td>{{ row[0] }}</td><th scope="row">{{ row[1] }}</th>
{% for cell in row[2:-2] %}<td>{{ cell }}</td>{% endfor %}
<td class="text verdict">{{ row[-2] }}</td><td class="text">{{ row[-1] }}</td></tr>
{% endfor %}
</tbody></table></div>
<h2>Pictures</h2>
{% for name, source, caption in images %}
<figure>
<img src="{{ source }}" alt="{{ caption }}">
<figcaption>{{ caption }} (figures/{{ name }}.png)</figcaption>
</figure>
{% endfor %}
<h2>What differs between the runs</h2>
{% if differing %}
<div class="wide" tabindex="0" role="region" aria-label="Differences"><table>
<caption>Config keys that differ, tables/differing.csv; an empty field: the run has no such key</caption>
<thead><tr><th scope="col">key</th>{% for name in names %}<th scope="col">{{ name }}</th>{% endfor %}</tr></thead>
<tbody>
{% for row in differing %}
<tr><th scope="row">{{ row[0] }}</th>{% for cell in row[1:] %}<td>{{ cell }}</td>{% endfor %}</tr>
{% endfor %}
</tbody></table></div>
{% else %}
<p>Nothing: the runs have the same config.</p>
{% endif %}
</main>
</body>
</html>
"""


def page(found: Comparison, remarks: Sequence[str], pictures: Sequence[tuple[str, bytes, str]]) -> str:
    """The comparison as one self-contained HTML page; `pictures` are names, PNG files and captions."""
    head, *rows = cells(found.table)
    images = [
        (name, f"data:image/png;base64,{b64encode(image).decode()}", caption) for name, image, caption in pictures
    ]
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    return environment.from_string(PAGE).render(
        num_rows=found.num_rows,
        head=head,
        rows=rows,
        words=[*found.words, *remarks],
        images=images,
        names=list(found.differing.columns),
        differing=list(found.differing.itertuples(name=None)),
    )
