import { start } from '../shared/start.tsx'
import { App } from './app.tsx'
import './exec.css'

start(App)
