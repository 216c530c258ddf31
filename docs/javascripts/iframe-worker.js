// The search runs in a Worker, and a browser starts none for a page that was opened from a folder (file://).
// There, this class takes the place of Worker: it runs the same script in a hidden frame.
if (location.protocol === "file:") {
  window.Worker = class extends EventTarget {
    constructor(url) {
      super();
      this.queue = []; // messages sent before the script is there
      const frame = document.createElement("iframe");
      frame.hidden = true;
      frame.addEventListener("load", () => this.#run(frame.contentWindow, url), { once: true });
      document.body.append(frame);
    }

    #run(scope, url) {
      scope.postMessage = (data) => this.dispatchEvent(new MessageEvent("message", { data }));
      const script = scope.document.createElement("script");
      script.src = new URL(url, location.href);
      script.addEventListener("load", () => {
        this.postMessage = (data) => scope.dispatchEvent(new MessageEvent("message", { data }));
        this.queue.splice(0).forEach(this.postMessage);
      });
      scope.document.head.append(script);
    }

    postMessage(data) {
      this.queue.push(data);
    }
  };
}
