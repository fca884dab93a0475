// A box that scrolls must be reachable without a mouse, and one that does not must be no tab stop.
// Which boxes scroll depends on the width of the page, on folds and on when the mathematics is set,
// so each is looked at again whenever its size changes.
(() => {
  const KINDS = {
    "pre": "code",
    "div.math": "equation",
    ".pst-scrollable-table-container": "table",
    ".cell_output .text_html": "table",
  };

  function mark(box, name) {
    const scrolls = box.scrollWidth > box.clientWidth + 1;
    if (scrolls === box.hasAttribute("data-scrolls")) return;
    box.toggleAttribute("data-scrolls", scrolls);
    if (scrolls) {
      box.setAttribute("tabindex", "0");
      box.setAttribute("role", "group");
      box.setAttribute("aria-label", `${name}, scrolls sideways`);
    } else {
      ["tabindex", "role", "aria-label"].forEach((a) => box.removeAttribute(a));
    }
  }

  document.addEventListener("DOMContentLoaded", () => {
    const names = new Map();
    const watcher = new ResizeObserver((seen) => {
      seen.forEach(({ target }) => {
        // An equation scrolls in the box that MathJax makes, which is not there from the start.
        mark(target.querySelector(":scope > mjx-container") ?? target, names.get(target));
      });
    });
    for (const [selector, name] of Object.entries(KINDS)) {
      document.querySelectorAll(`.bd-article ${selector}`).forEach((box) => {
        names.set(box, name);
        watcher.observe(box);
      });
    }

    // The role given to references by the build is out of use, so that the list seems to be empty.
    document.querySelectorAll(".citation-list > .citation").forEach((entry) => {
      entry.setAttribute("role", "listitem");
    });
  });
})();
