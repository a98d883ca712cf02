"use strict";
const articles = [...document.querySelectorAll("article")];
const buttons = [...document.querySelectorAll("button[data-kind]")];
const tip = document.getElementById("tip");
let shown = 0;

function show(index) {
  shown = (index + articles.length) % articles.length;
  articles.forEach((article, place) => { article.hidden = place !== shown; });
  const kind = articles[shown].dataset.kind;
  for (const button of buttons) {
    button.setAttribute("aria-pressed", String(button.dataset.kind === kind));
  }
  document.getElementById("place").textContent = `${shown + 1} of ${articles.length}`;
  tip.hidden = true;
}

// The pixels of a map of segments, decoded when someone first points at it.
async function readPlaces(image) {
  const map = new Image();
  map.src = image.dataset.places;
  await map.decode();
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [map.width, map.height];
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.drawImage(map, 0, 0);
  return context.getImageData(0, 0, map.width, map.height);
}

const places = new Map();
async function point(event) {
  const image = event.target;
  const { offsetX, offsetY, clientX, clientY } = event;
  if (!places.has(image)) places.set(image, readPlaces(image));
  const map = await places.get(image);
  const column = Math.min(Math.floor(offsetX / image.clientWidth * map.width), map.width - 1);
  const row = Math.min(Math.floor(offsetY / image.clientHeight * map.height), map.height - 1);
  const start = 4 * (Math.max(row, 0) * map.width + Math.max(column, 0));
  const number = map.data[start] + 256 * map.data[start + 1];
  tip.textContent = number ? JSON.parse(image.dataset.segments)[number - 1] : "void";
  tip.hidden = false;
  // Beside the pointer, and not beyond the edge of the window.
  const room = document.documentElement.clientWidth - tip.offsetWidth - 4;
  tip.style.left = `${Math.max(0, Math.min(clientX + 12, room))}px`;
  tip.style.top = `${clientY + 14}px`;
}

for (const image of document.querySelectorAll("img[data-places]")) {
  image.addEventListener("pointermove", point);
  image.addEventListener("pointerdown", point);
  image.addEventListener("pointerleave", () => { tip.hidden = true; });
}
for (const button of buttons) {
  const first = articles.findIndex((article) => article.dataset.kind === button.dataset.kind);
  button.addEventListener("click", () => show(first));
}
for (const button of document.querySelectorAll("button[data-step]")) {
  button.addEventListener("click", () => show(shown + Number(button.dataset.step)));
}
document.addEventListener("keydown", (event) => {
  const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
  if (step && !event.ctrlKey && !event.altKey && !event.metaKey) {
    event.preventDefault();
    show(shown + step);
  }
});
if (articles.length) show(0);
