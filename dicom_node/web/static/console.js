// A part that refreshes by itself waits while the keyboard is in it: to swap it would lose the
// focus and close what was opened there.
document.addEventListener("htmx:beforeRequest", (event) => {
  const part = event.detail.elt;
  const every = (part.getAttribute("hx-trigger") || "").startsWith("every");
  if (every && part.contains(document.activeElement)) event.preventDefault();
});
