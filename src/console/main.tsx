import { render } from 'hono/jsx/dom';
import 'uplot/dist/uPlot.min.css';

import { App } from './app.tsx';
import './console.css';

const root = document.querySelector<HTMLElement>('#root');
if (root !== null) render(<App />, root);
