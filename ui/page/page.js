'use strict';
// The whole page talks to the public HTTP API of this process and nothing else.

const PODS_SHOWN = 50, SERIES_SHOWN = 20, SPAN_S = 900, STEP_S = 15, REFRESH_MS = 5000;
const RESOURCE = '{metrics_path="/metrics/resource"}';
const byId = (id) => document.getElementById(id);
let allPods = false;

async function getJson(path, parameters) {
  const query = parameters ? '?' + new URLSearchParams(parameters) : '';
  const response = await fetch(path + query, { headers: { Accept: 'application/json' } });
  const body = await response.json();
  if (!response.ok) throw new Error(body.error || body.message || response.statusText);
  return body;
}

const range = (query, span = SPAN_S, step = STEP_S) => {
  const end = Math.floor(Date.now() / 1000);
  return getJson('api/v1/query_range', { query, start: end - span, end, step });
};

// Elements are built, never parsed from text: label values are not to be trusted.
function element(name, attributes, ...children) {
  const svg = ['svg', 'path', 'line', 'text'].includes(name);
  const node = svg ? document.createElementNS('http://www.w3.org/2000/svg', name) : document.createElement(name);
  for (const [key, value] of Object.entries(attributes || {})) node.setAttribute(key, value);
  node.append(...children);
  return node;
}
const cell = (content, css) => element('td', css ? { class: css } : {}, content);

function quantity(text) {
  const units = { n: 1e-9, u: 1e-6, m: 1e-3, '': 1, Ki: 2 ** 10, Mi: 2 ** 20, Gi: 2 ** 30, Ti: 2 ** 40 };
  const match = /^([0-9.]+)([a-zA-Z]*)$/.exec(text);
  return match ? Number(match[1]) * (units[match[2]] ?? NaN) : NaN;
}
const cores = (value) => value < 1 ? `${Math.round(value * 1000)}m` : value.toFixed(2);
const bytes = (value) => value < 2 ** 30 ? `${(value / 2 ** 20).toFixed(1)} MiB` : `${(value / 2 ** 30).toFixed(2)} GiB`;

// Points as an SVG path over [0,1000] x [0,100]; a gap where a step is missing or not a number.
function path(values, start, step, span, low, high) {
  const height = high > low ? high - low : 1;
  let out = '', last = -Infinity;
  for (const [t, text] of values) {
    const value = Number(text);
    if (!Number.isFinite(value)) continue;
    const x = ((t - start) / span) * 1000, y = 100 - ((value - low) / height) * 100;
    out += `${t - last > step * 1.5 ? 'M' : 'L'}${x.toFixed(1)},${y.toFixed(1)}`;
    last = t;
  }
  return out;
}

function spark(values) {
  if (!values || values.length < 2) return '';
  const high = Math.max(...values.map((v) => Number(v[1])).filter(Number.isFinite), 0);
  const end = Math.floor(Date.now() / 1000);
  const svg = element('svg', { class: 'spark', viewBox: '0 -4 1000 108', preserveAspectRatio: 'none' });
  svg.append(element('path', { d: path(values, end - SPAN_S, STEP_S, SPAN_S, 0, high) }));
  return svg;
}

const series = async (query, key) => {
  const { data } = await range(query);
  return new Map(data.result.map((row) => [key(row.metric), row.values]));
};

async function showNodes() {
  const list = await getJson('apis/metrics.k8s.io/v1beta1/nodes');
  const cpu = await series(`sum by (node) (rate(node_cpu_usage_seconds_total${RESOURCE}[1m]))`, (m) => m.node);
  const memory = await series(`sum by (node) (node_memory_working_set_bytes${RESOURCE})`, (m) => m.node);
  byId('nodes').replaceChildren(...list.items.map(({ metadata: { name }, usage }) => element('tr', {},
    cell(name), cell(cores(quantity(usage.cpu)), 'n'), cell(spark(cpu.get(name))),
    cell(bytes(quantity(usage.memory)), 'n'), cell(spark(memory.get(name))))));
}

async function showPods() {
  const list = await getJson('apis/metrics.k8s.io/v1beta1/pods');
  const key = (m) => `${m.namespace}/${m.pod}`;
  const by = 'sum by (namespace, pod)';
  const cpu = await series(`${by} (rate(container_cpu_usage_seconds_total${RESOURCE}[1m]))`, key);
  const memory = await series(`${by} (container_memory_working_set_bytes${RESOURCE})`, key);
  const total = (item, resource) => item.containers.reduce((sum, c) => sum + quantity(c.usage[resource]), 0);
  const filter = byId('filter').value.toLowerCase();
  const rows = list.items
    .map((item) => ({ ...item.metadata, cpu: total(item, 'cpu'), memory: total(item, 'memory') }))
    .filter((row) => `${row.namespace}/${row.name}`.toLowerCase().includes(filter))
    .sort((a, b) => b.cpu - a.cpu || b.memory - a.memory);
  const shown = allPods ? rows : rows.slice(0, PODS_SHOWN);
  byId('pods').replaceChildren(...shown.map((row) => element('tr', {},
    cell(row.namespace), cell(row.name), cell(cores(row.cpu), 'n'), cell(spark(cpu.get(`${row.namespace}/${row.name}`))),
    cell(bytes(row.memory), 'n'), cell(spark(memory.get(`${row.namespace}/${row.name}`))))));
  byId('more').hidden = shown.length === rows.length;
  byId('more').textContent = `show all ${rows.length}`;
}

async function showTargets() {
  const { data } = await getJson('api/v1/targets', { state: 'active' });
  byId('targets').replaceChildren(...data.activeTargets.map((target) => element('tr', {},
    cell(target.scrapePool), cell(target.scrapeUrl, 'labels'), cell(target.health, target.health),
    cell(`${(target.lastScrapeDuration * 1000).toFixed(1)} ms`, 'n'), cell(target.lastError, 'down'))));
}

const COLORS = ['#d9480f', '#1971c2', '#2b8a3e', '#9c36b5', '#e8590c', '#0c8599', '#c2255c', '#5c940d', '#6741d9', '#f08c00'];
const labelText = (metric) => {
  const { __name__: name = '', ...labels } = metric;
  const pairs = Object.entries(labels).map(([k, v]) => `${k}=${JSON.stringify(v)}`).join(', ');
  return pairs || !name ? `${name}{${pairs}}` : name;
};

function drawChart(rows, end, span, step) {
  const values = rows.flatMap((row) => row.values.map((v) => Number(v[1]))).filter(Number.isFinite);
  if (!values.length) return byId('chart').replaceChildren();
  const low = Math.min(...values, 0), high = Math.max(...values);
  const svg = element('svg', { viewBox: '0 -4 1000 108', preserveAspectRatio: 'none', role: 'img' });
  for (const y of [0, 50, 100]) svg.append(element('line', { x1: 0, x2: 1000, y1: y, y2: y }));
  rows.forEach((row, i) => svg.append(element('path',
    { d: path(row.values, end - span, step, span, low, high), stroke: COLORS[i % COLORS.length] })));
  const clock = (t) => new Date(t * 1000).toLocaleString();
  const scale = element('p', {}, `${low.toPrecision(4)} to ${high.toPrecision(4)}, ${clock(end - span)} to ${clock(end)}`);
  byId('chart').replaceChildren(svg, scale);
}

function tell(text, bad) {
  byId('notes').textContent = text;
  byId('notes').className = bad ? 'bad' : '';
}

async function runQuery(event) {
  event?.preventDefault();
  const query = byId('expression').value, span = Number(byId('span').value);
  const [head, body] = byId('result').children;
  try {
    const instant = await getJson('api/v1/query', { query });
    const { resultType, result } = instant.data;
    const single = resultType === 'scalar' || resultType === 'string';
    const rows = single ? [{ metric: {}, value: result }] : result;
    const last = (row) => row.value?.[1] ?? row.values?.at(-1)?.[1] ?? 'histogram';
    const shown = rows.slice(0, 1000);
    const swatch = (i) => i < SERIES_SHOWN ? element('span', { class: 'swatch', style: `background:${COLORS[i % COLORS.length]}` }) : '';
    let chartRows = [];
    if (resultType === 'vector' || resultType === 'scalar') {
      const step = Math.max(1, Math.ceil(span / 240)), end = Math.floor(Date.now() / 1000);
      const matrix = (await range(query, span, step)).data.result;
      const order = new Map(rows.map((row, i) => [labelText(row.metric), i]));
      const place = (row) => order.get(labelText(row.metric)) ?? Infinity;
      chartRows = matrix.filter((row) => row.values).sort((a, b) => place(a) - place(b)).slice(0, SERIES_SHOWN);
      drawChart(chartRows, end, span, step);
    } else {
      byId('chart').replaceChildren();
    }
    head.replaceChildren(element('tr', {}, element('th', {}, 'Series'), element('th', { class: 'n' }, 'Value')));
    body.replaceChildren(...shown.map((row, i) => {
      const name = cell(swatch(i), 'labels');
      name.append(labelText(row.metric));
      return element('tr', {}, name, cell(last(row), 'n'));
    }));
    const notes = [...(instant.warnings || []), ...(instant.infos || [])];
    const more = rows.length > shown.length ? `, ${shown.length} shown` : '';
    tell([`${rows.length} rows${more}`, ...notes].join('\n'));
  } catch (error) {
    tell(error.message, true);
    byId('chart').replaceChildren();
    head.replaceChildren();
    body.replaceChildren();
  }
}

async function refresh() {
  try {
    await Promise.all([showNodes(), showPods(), showTargets()]);
    byId('problem').textContent = '';
  } catch (error) {
    byId('problem').textContent = error.message;
  }
  setTimeout(refresh, REFRESH_MS);
}

// Links of alerts name an expression, as Prometheus' pages take it.
const asked = new URLSearchParams(location.search).get('g0.expr');
if (asked) {
  byId('expression').value = asked;
  byId('query').scrollIntoView();
  runQuery();
}
byId('query').addEventListener('submit', runQuery);
byId('filter').addEventListener('input', showPods);
byId('more').addEventListener('click', () => { allPods = true; showPods(); });
getJson('version').then(({ version }) => { byId('version').textContent = version; }).catch(() => {});
refresh();
