import './styles/tokens.css';
import './styles/base.css';

import { mount } from 'svelte';

import App from './App.svelte';
import { prefs } from './core/prefs.svelte';
import { listen } from './core/router.svelte';
import { session } from './core/session.svelte';

prefs.apply();
listen();
void session.start();
mount(App, { target: document.getElementById('app')! });
