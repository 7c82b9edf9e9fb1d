"""How a report looks and what it does in a browser: style and script, without any library."""

STYLE = """
body{font:16px/1.55 system-ui,sans-serif;color:#1c2530;max-width:86rem;margin:2rem auto;padding:0 1.2rem}
h1{font-size:1.9rem;margin-bottom:.2rem}h2{margin-top:3rem;border-bottom:2px solid #1b6ca8;padding-bottom:.2rem}
h3{margin-top:2rem}table{border-collapse:collapse;font-variant-numeric:tabular-nums;font-size:.85rem}
td,th{padding:.3rem .55rem;text-align:right;border-bottom:1px solid #dde3e9}td{white-space:nowrap}
th{vertical-align:bottom}td:first-child,th:first-child,td.wide{text-align:left}tr:hover td{background:#f3f7fa}
td.wide{white-space:normal}tr>:first-child{position:sticky;left:0;background:#fff}
th.paired,td.paired{background:#eef5fa}tr.baseline td:first-child{font-weight:600}
figure{margin:1.2rem 0;overflow-x:auto}figure svg{display:block;max-width:100%;min-width:44rem;height:auto}
figcaption{position:sticky;left:0}figcaption{color:#51606e;font-size:.92rem;max-width:60rem}
p{max-width:60rem}pre{background:#f3f7fa;padding:1rem;font-size:.85rem;overflow:auto}small{color:#51606e}
.scroll{overflow-x:auto}summary{cursor:pointer;color:#1b6ca8}.away{display:none}a{color:#1b6ca8}
#filters{position:sticky;top:0;background:#fffffff2;border:1px solid #dde3e9;border-radius:.4rem;padding:.5rem .9rem;
z-index:2;max-height:40vh;overflow:auto;font-size:.88rem}#filters div{margin:.15rem 0}
#filters label{margin-right:.9rem;display:inline-block;max-width:100%}#baseline{max-width:24rem}
h2,label,figcaption,.name{overflow-wrap:break-word}
.name{display:inline-block;width:max-content;max-width:24rem;white-space:normal}
#filters b{display:inline-block;min-width:5.5rem;margin-right:.5rem}
#filters button{font:inherit;font-size:.8rem;margin-right:.6rem}.bad{color:#a4262c}
@media print{#filters{display:none}}
"""

# What is chosen stands in the address after #, as policy=0,2&baseline=1, so that a view can be passed on.
SCRIPT = """
"use strict";
(() => {
  const facts = JSON.parse(document.getElementById("facts").textContent);
  const kinds = ["policy", "stream", "price", "setting"];
  const box = document.getElementById("filters");
  const base = document.getElementById("baseline");
  const quantile = n => n < 2 ? NaN : facts.t95[n - 2];
  const interval = x => {
    const n = x.length, mean = x.reduce((a, b) => a + b, 0) / n;
    const square = x.reduce((a, b) => a + (b - mean) ** 2, 0);
    return [mean, n < 2 ? NaN : quantile(n) * Math.sqrt(square / (n - 1) / n)];
  };
  const shown = (x, scale, digits, runs) => {
    const [mean, half] = interval(x);
    const spread = Number.isNaN(half) ? "" : ` <small>±${(half * scale).toFixed(digits)}</small>`;
    const fewer = x.length === runs ? "" : ` <small>n = ${x.length}</small>`;
    return (mean * scale).toFixed(digits) + spread + fewer;
  };
  const differences = {
    saved: ["cost", (a, b) => 1 - a / b, 100, 1],
    change: ["accuracy", (a, b) => a - b, 100, 1],
    regret_change: ["regret", (a, b) => a - b, 1, 0],
  };
  const chosen = kind => new Set([...box.querySelectorAll(`input[name=${kind}]`)]
    .filter(i => i.checked).map(i => i.value));

  function pair() {
    const baseline = base.value;
    for (const row of document.querySelectorAll("tr[data-policy]")) {
      const facet = facts.facets[row.closest("[data-facet]").dataset.facet];
      row.classList.toggle("baseline", row.dataset.policy === baseline);
      const mine = facet[row.dataset.policy], theirs = facet[baseline];
      for (const [name, [of, difference, scale, digits]] of Object.entries(differences)) {
        const cell = row.querySelector(`td[data-metric=${name}]`);
        if (!cell) continue;
        const known = Object.keys(theirs && mine || {})
          .filter(s => s in theirs && Number.isFinite(mine[s][of]) && Number.isFinite(theirs[s][of]))
          .map(s => difference(mine[s][of], theirs[s][of])).filter(Number.isFinite);
        cell.innerHTML = known.length ? shown(known, scale, digits, Object.keys(mine).length) : "–";
      }
    }
    for (const name of document.querySelectorAll(".against")) name.textContent = facts.policies[baseline];
  }

  function filter() {
    const on = Object.fromEntries(kinds.map(kind => [kind, chosen(kind)]));
    for (const part of document.querySelectorAll("[data-policy],[data-stream],[data-price],[data-setting]")) {
      const out = kinds.some(kind => kind in part.dataset
        && !part.dataset[kind].split(" ").some(value => on[kind].has(value)));
      part.classList.toggle("away", out);
    }
    const said = kinds.filter(kind => on[kind].size < facts.count[kind])
      .map(kind => `${kind}=${[...on[kind]].join(",")}`);
    if (base.value !== facts.baseline) said.push(`baseline=${base.value}`);
    history.replaceState(null, "", said.length ? "#" + said.join("&") : "#");
  }

  function begin() {
    const asked = new URLSearchParams(location.hash.slice(1));
    for (const kind of kinds) {
      if (!asked.has(kind)) continue;
      const wanted = new Set(asked.get(kind).split(","));
      for (const input of box.querySelectorAll(`input[name=${kind}]`)) input.checked = wanted.has(input.value);
    }
    if (asked.has("baseline") && asked.get("baseline") in facts.policies) base.value = asked.get("baseline");
    pair();
    filter();
  }

  box.addEventListener("change", () => { pair(); filter(); });
  for (const button of box.querySelectorAll("button")) {
    button.addEventListener("click", () => {
      for (const input of box.querySelectorAll(`input[name=${button.dataset.of}]`))
        input.checked = button.dataset.to === "all";
      filter();
    });
  }
  window.addEventListener("hashchange", begin);
  begin();
})();
"""
