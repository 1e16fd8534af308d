/** The title of the window, for a page. */
import { visible } from '../format/text';

export function title(of: () => string): void {
  $effect(() => {
    document.title = `${visible(of(), 80)} · Berth`;
  });
}
