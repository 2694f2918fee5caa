import { start } from '../shared/start.tsx'
import { App } from './app.tsx'
import './terminal.css'

start(App)
