import { start } from '../shared/start.tsx'
import { App } from './app.tsx'
import './sqlite.css'

start(App)
