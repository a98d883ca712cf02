const choice = document.getElementById("class");
function show() {
  let shown = 0;
  for (const figure of document.querySelectorAll("figure")) {
    const fits = !choice.value
      || JSON.parse(figure.dataset.classes).includes(Number(choice.value));
    figure.hidden = !fits;
    shown += fits;
  }
  document.getElementById("shown").textContent = shown + " shown";
}
choice.addEventListener("change", show);
show();
