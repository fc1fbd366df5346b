// A cursor for the charts: the pointer, a finger or the arrow keys ask what is there.
"use strict";
for (const plot of document.querySelectorAll(".plot[data-cursor]")) {
  const { at, text } = JSON.parse(plot.dataset.cursor);
  if (at.length === 0) continue;
  const line = document.createElement("span");
  const note = document.createElement("span");
  line.className = "cursor";
  note.className = "tip";
  note.setAttribute("role", "status");
  let index = -1;

  const show = (wanted) => {
    index = Math.max(0, Math.min(at.length - 1, wanted));
    if (!line.isConnected) plot.append(line, note);
    line.style.left = `${at[index] * 100}%`;
    if (note.textContent !== text[index]) note.textContent = text[index];
    note.style.left = at[index] < 0.5 ? `${at[index] * 100}%` : "auto";
    note.style.right = at[index] < 0.5 ? "auto" : `${(1 - at[index]) * 100}%`;
  };
  const hide = () => {
    line.remove();
    note.remove();
    index = -1;
  };
  const nearest = (event) => {
    const frame = plot.getBoundingClientRect();
    const place = (event.clientX - frame.left) / frame.width;
    let best = 0;
    for (let each = 1; each < at.length; each++) {
      if (Math.abs(at[each] - place) < Math.abs(at[best] - place)) best = each;
    }
    return best;
  };

  plot.addEventListener("pointermove", (event) => show(nearest(event)));
  plot.addEventListener("pointerdown", (event) => show(nearest(event)));
  plot.addEventListener("pointerleave", hide);
  plot.addEventListener("blur", hide);
  plot.addEventListener("keydown", (event) => {
    const steps = { ArrowLeft: -1, ArrowRight: 1, Home: -Infinity, End: Infinity };
    if (event.key === "Escape") hide();
    if (!(event.key in steps)) return;
    event.preventDefault();
    show(index < 0 && event.key === "ArrowRight" ? 0 : index + steps[event.key]);
  });
}
