/** xterm, in a chunk of its own: only who opens a terminal fetches it. */
import '@xterm/xterm/css/xterm.css';

import { FitAddon } from '@xterm/addon-fit';
import { Terminal, type ITheme } from '@xterm/xterm';

/**
 * The page allows no inline styles, and xterm writes some: what it puts into a style element goes into a sheet of the document instead, and
 * what it writes as an attribute is set as properties, which are no text that somebody could have injected.
 */
function withoutInlineStyles(root: HTMLElement): () => void {
  const create = document.createElement;
  const sheets = new Set<CSSStyleSheet>();
  const put = (change: (all: CSSStyleSheet[]) => CSSStyleSheet[]) => (document.adoptedStyleSheets = change([...document.adoptedStyleSheets]));
  document.createElement = function (this: Document, name: string, options?: ElementCreationOptions) {
    const element = create.call(this, name, options);
    if (name.toLowerCase() === 'style') {
      const sheet = new CSSStyleSheet();
      sheets.add(sheet);
      put((all) => [...all, sheet]);
      Object.defineProperty(element, 'textContent', { get: () => '', set: (text: string) => sheet.replaceSync(text) });
      Object.defineProperty(element, 'sheet', { get: () => sheet });
      element.remove = () => {
        sheets.delete(sheet);
        put((all) => all.filter((one) => one !== sheet));
        Element.prototype.remove.call(element);
      };
    }
    return element;
  } as typeof document.createElement;

  const setAttribute = Element.prototype.setAttribute;
  Element.prototype.setAttribute = function (name: string, value: string) {
    if (name === 'style' && this instanceof HTMLElement && (root.contains(this) || !this.isConnected)) this.style.cssText = value;
    else setAttribute.call(this, name, value);
  };
  return () => {
    document.createElement = create;
    Element.prototype.setAttribute = setAttribute;
    put((all) => all.filter((one) => !sheets.has(one)));
  };
}

export type Session = { close(): void; focus(): void };

type Told = { exit?: number; error?: { code: string; detail: string } };

const DARK: ITheme = { background: '#0f1317', foreground: '#e6eaee', cursor: '#62bddb', selectionBackground: '#2f5562' };
const LIGHT: ITheme = {
  background: '#ffffff', foreground: '#171b20', cursor: '#0c6480', selectionBackground: '#bfe0eb', black: '#171b20', red: '#ad2424', green: '#1c6b41', yellow: '#855400', blue: '#1f4fa3',
  magenta: '#7a2f87', cyan: '#0c6480', white: '#565f69', brightBlack: '#565f69', brightRed: '#d13a3a', brightGreen: '#24935a', brightYellow: '#a86b00', brightBlue: '#2c66c9',
  brightMagenta: '#9a45a8', brightCyan: '#2389ad', brightWhite: '#171b20',
};

/** Opens a shell in the berth of `user`; `ended` is told why it is over. */
export function open(root: HTMLElement, user: string, dark: boolean, ended: (why: string) => void): Session {
  const restore = withoutInlineStyles(root);
  const style = getComputedStyle(document.documentElement);
  const terminal = new Terminal({ fontFamily: style.getPropertyValue('--mono'), fontSize: 13, cursorBlink: !matchMedia('(prefers-reduced-motion: reduce)').matches, scrollback: 5_000, screenReaderMode: true, theme: dark ? DARK : LIGHT });
  const fit = new FitAddon();
  terminal.loadAddon(fit);
  terminal.open(root);
  fit.fit();

  const address = new URL(`/api/v1/berths/${encodeURIComponent(user)}/terminal?columns=${terminal.cols}&rows=${terminal.rows}`, location.href);
  address.protocol = location.protocol === 'https:' ? 'wss:' : 'ws:';
  const socket = new WebSocket(address);
  socket.binaryType = 'arraybuffer';
  const encoder = new TextEncoder();
  let over = false;
  const finish = (why: string) => {
    if (over) return;
    over = true;
    ended(why);
  };
  const send = (data: Uint8Array<ArrayBuffer>) => socket.readyState === WebSocket.OPEN && socket.send(data);
  socket.onmessage = ({ data }: MessageEvent<ArrayBuffer | string>) => {
    if (typeof data !== 'string') return terminal.write(new Uint8Array(data));
    const told = JSON.parse(data) as Told;
    if (told.exit !== undefined) finish(told.exit === 0 ? 'The shell has ended.' : `The shell has ended with ${told.exit}.`);
    else if (told.error) finish(`${told.error.detail}.`);
  };
  socket.onclose = () => finish('The connection to the shell is lost, or it was refused.');
  terminal.onData((text) => send(encoder.encode(text)));
  terminal.onBinary((text) => send(Uint8Array.from(text, (c) => c.charCodeAt(0))));
  terminal.onResize(({ cols, rows }) => socket.readyState === WebSocket.OPEN && socket.send(JSON.stringify({ resize: { columns: cols, rows } })));
  // Tab belongs to the shell; with Ctrl it leaves the terminal.
  terminal.attachCustomKeyEventHandler((event) => !(event.key === 'Tab' && event.ctrlKey) && !(event.key === 'Escape' && event.ctrlKey));

  const observer = new ResizeObserver(() => fit.fit());
  observer.observe(root);
  terminal.focus();
  return {
    focus: () => terminal.focus(),
    close() {
      over = true;
      observer.disconnect();
      socket.close();
      terminal.dispose();
      restore();
    },
  };
}
