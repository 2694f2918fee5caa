import { start } from '../shared/start.tsx'
import { App } from './app.tsx'
import './logs.css'

start(App)
