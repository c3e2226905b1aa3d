"use strict";
// One message in flight: the server sends the next frame once this page has drawn the last and said so.

const $ = (id) => document.getElementById(id);
const view = $("view"), picture = view.getContext("2d");
const history = [];
let paused = false, socket = null, retryMs = 500, rows = [];

function show(id, value, digits = 0) {
  $(id).textContent = typeof value === "number" && value > 0 ? value.toFixed(digits) : value === 0 ? "0" : "-";
}

function setState(state, text) {
  $("state").dataset.state = state;
  $("state").textContent = text || state;
}

function element(tag, className, parent) {
  const made = document.createElement(tag);
  made.className = className;
  parent.append(made);
  return made;
}

function buildClasses(classes) {
  $("classes").replaceChildren();
  rows = classes.map(({ name, colour }) => {
    const row = element("li", "absent", $("classes"));
    const css = `rgb(${colour.join(" ")})`;
    element("span", "swatch", row).style.background = css;
    const label = element("span", "name", row);
    label.textContent = label.title = name;
    const bar = element("i", "", element("span", "bar", row));
    bar.style.background = css;
    return { row, bar, figure: element("span", "figure", row) };
  });
}

function showAreas(areas) {
  areas.forEach((share, index) => {
    if (!rows[index]) return;
    const { row, bar, figure } = rows[index];
    row.classList.toggle("absent", share === 0);
    bar.style.width = `${100 * share}%`;
    figure.textContent = share === 0 ? "" : share < 0.001 ? "<0.1%" : `${(100 * share).toFixed(1)}%`;
  });
}

function showStages(stages) {
  const most = Math.max(...Object.values(stages).map((times) => times.mean), 0.001);
  $("stages").replaceChildren();
  for (const [name, times] of Object.entries(stages)) {
    const row = element("li", "", $("stages"));
    element("span", "name", row).textContent = name;
    element("i", "", element("span", "bar", row)).style.width = `${(100 * times.mean) / most}%`;
    element("span", "figure", row).textContent = times.mean.toFixed(1);
  }
}

function showFaults(stats) {
  const { source, sinks } = stats;
  const named = { reconnects: "reconnected", corrupt: "damaged frames", frozen: "froze", stalled: "stalled", capped: "frames over the limit", size_changes: "changed size" };
  const lines = Object.entries(named).filter(([key]) => source[key] > 0).map(([key, text]) => `source: ${text} ${source[key]}x`);
  sinks.filter((sink) => sink.error).forEach((sink) => lines.push(`${sink.uri}: ${sink.error}`));
  $("faults").hidden = lines.length === 0;
  $("faultlist").replaceChildren(...lines.map((line) => Object.assign(document.createElement("li"), { textContent: line })));
}

function drawSpark(value) {
  history.push(value);
  if (history.length > 120) history.shift();
  const canvas = $("spark"), pen = canvas.getContext("2d"), top = Math.max(...history, 1) * 1.1;
  pen.clearRect(0, 0, canvas.width, canvas.height);
  pen.strokeStyle = "#5aa9ff";
  pen.lineWidth = 3;
  pen.lineJoin = "round";
  pen.beginPath();
  history.forEach((fps, index) => pen.lineTo(canvas.width - 2 - (history.length - 1 - index) * (canvas.width / 120), canvas.height - 3 - (fps / top) * (canvas.height - 6)));
  pen.stroke();
}

function showStats(stats) {
  const { source, latency_ms: latency } = stats;
  const page = stats.sinks.find((sink) => sink.display_ms) || {};
  $("model").textContent = stats.model;
  const size = source.width ? `  ${source.width}x${source.height}` : "";
  $("source").textContent = $("source").title = source.uri + size;
  setState(source.state);
  $("message").textContent = source.state === "playing" || source.state === "ended" ? "" : source.note || source.state;
  show("fps", stats.recent_fps, 1);
  show("p50", latency.p50, 1);
  show("p95", latency.p95, 1);
  show("p99", latency.p99, 1);
  show("display", page.display_ms && page.display_ms.p50, 1);
  show("frames", stats.frames);
  show("dropped", stats.dropped);
  drawSpark(stats.recent_fps);
  showStages(stats.stages_ms);
  showFaults(stats);
}

async function showFrame(buffer) {
  const length = new DataView(buffer).getUint32(0);
  const meta = JSON.parse(new TextDecoder().decode(new Uint8Array(buffer, 4, length)));
  try {
    if (!paused) {
      const bitmap = await createImageBitmap(new Blob([new Uint8Array(buffer, 4 + length)], { type: "image/jpeg" }));
      if (view.width !== bitmap.width || view.height !== bitmap.height) Object.assign(view, { width: bitmap.width, height: bitmap.height });
      picture.drawImage(bitmap, 0, 0);
      bitmap.close();
      showAreas(meta.area);
    }
  } finally {
    if (socket && socket.readyState === WebSocket.OPEN) socket.send(JSON.stringify({ ack: meta.seq }));
  }
}

function connect() {
  const scheme = location.protocol === "https:" ? "wss" : "ws";
  socket = new WebSocket(`${scheme}://${location.host}/ws`);
  socket.binaryType = "arraybuffer";
  socket.onopen = () => { retryMs = 500; };
  socket.onmessage = ({ data }) => (typeof data === "string" ? showStats(JSON.parse(data).stats) : showFrame(data));
  socket.onclose = () => {
    setState("offline");
    $("message").textContent = "edgeseg has stopped, or the connection is gone; trying again";
    setTimeout(connect, retryMs);
    retryMs = Math.min(retryMs * 2, 8000);
  };
}

$("pause").onclick = () => {
  paused = !paused;
  $("pause").setAttribute("aria-pressed", paused);
  $("pause").textContent = paused ? "Resume" : "Pause";
};
$("full").onclick = () => (document.fullscreenElement ? document.exitFullscreen() : view.requestFullscreen());

fetch("classes").then((answer) => answer.json()).then(({ classes }) => buildClasses(classes)).finally(connect);
